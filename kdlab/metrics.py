"""The numbers that describe a classifier.

Shapes: B samples, K classes.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from kdlab.errors import UsageError

ECE_BINS = 15  # Guo et al., On Calibration of Modern Neural Networks, 2017


class ClassificationMetrics(nn.Module):
    r"""Accuracy and calibration of a split.

    * ``accuracy`` and ``top5``: shares of all samples in [0, 1], the higher the better (micro average; top-5 of fewer
      than five classes is top-K).
    * ``nll``: mean :math:`-\ln p_y` of the label y, in nats, the lower the better.
    * ``ece``: expected calibration error, 0 to 1, the lower the better:
      :math:`\sum_b \frac{n_b}{N} |a_b - c_b|` over 15 bins of equal width of the confidence (the probability of the
      answer), with accuracy a and mean confidence c of the :math:`n_b` samples in bin b. Summed in float32.
    * ``brier``: squared distance of the probabilities from the one-hot label, mean over the samples, 0 to 2, the lower
      the better.

    Exact under DDP, also when ranks hold different numbers of samples, or none.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017 (ECE); Brier, Verification of Forecasts Expressed
    in Terms of Probability, 1950.

    Example:
        >>> metrics = ClassificationMetrics(num_classes=2)
        >>> sure_to_three_quarters = torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log()
        >>> metrics.update(sure_to_three_quarters, torch.tensor([0, 1]))  # right once
        >>> {name: round(value.item(), 4) for name, value in metrics.compute().items()}
        {'accuracy': 0.5, 'top5': 1.0, 'nll': 0.837, 'ece': 0.25, 'brier': 0.625}

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # labels were looked at when the data were read; looking again would make a GPU wait in each batch
        options: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
        self.accuracy = MulticlassAccuracy(average="micro", **options)
        self.top5 = MulticlassAccuracy(average="micro", top_k=min(5, num_classes), **options)
        self.nll = _mean()
        self.ece = MulticlassCalibrationError(n_bins=ECE_BINS, **options)
        self.brier = _mean()

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add ``[B, K]`` logits and ``[B]`` class indices; B may be 0."""
        if len(label) == 0:  # a rank without samples; torchmetrics cannot reshape them, but waits for it in compute
            return
        # float64, so that sums hardly depend on how the samples were spread over batches and ranks
        logits = logits.double()
        self.accuracy.update(logits, label)
        self.top5.update(logits, label)
        self.nll.update(F.cross_entropy(logits, label, reduction="none"))
        p = logits.softmax(dim=-1)
        self.brier.update((p - F.one_hot(label, logits.shape[-1])).square().sum(dim=-1))
        # probabilities, because torchmetrics would take logits that happen to lie in [0, 1] for probabilities
        # in [0, 1), because it would put a confidence of exactly 1 into a bin of its own, the sixteenth
        self.ece.update(p.clamp(max=1 - 2**-24), label)

    def compute(self) -> dict[str, Tensor]:
        """Return accuracy, top5, nll, ece and brier over everything since the last call, and start anew."""
        metrics: dict[str, Metric] = {"accuracy": self.accuracy, "top5": self.top5, "nll": self.nll, "ece": self.ece}
        return _compute(metrics | {"brier": self.brier})


class FidelityMetrics(nn.Module):
    """How close the student's answers are to the teacher's.

    ``agreement`` is the share of equal arg-max in [0, 1]; ``teacher_kl`` is KL(teacher || student) at temperature 1 in
    nats per sample; ``same_wrong_rate`` is the share of equal answers among the samples that both answer wrongly, NaN
    where there are none; ``spearman`` is the mean over samples of the rank correlation of the K logits, tied logits at
    their mean rank, without rows of equal logits, which have none (NaN where all rows are such). As
    `kdlab.analysis.Fidelity` computes them, and exact under DDP.
    """

    def __init__(self) -> None:
        super().__init__()
        self.agreement, self.teacher_kl, self.same_wrong_rate, self.spearman = (_mean() for _ in range(4))

    def update(self, student: Tensor, teacher: Tensor, label: Tensor) -> None:
        """Add the ``[B, K]`` logits of both and the ``[B]`` class indices; B may be 0."""
        student, teacher = student.double(), teacher.double()
        answer, teacher_answer = student.argmax(dim=-1), teacher.argmax(dim=-1)
        equal, both_wrong = (answer == teacher_answer).double(), (answer != label) & (teacher_answer != label)
        log_p, teacher_log_p = student.log_softmax(dim=-1), teacher.log_softmax(dim=-1)
        self.agreement.update(equal)
        self.teacher_kl.update(F.kl_div(log_p, teacher_log_p, reduction="none", log_target=True).sum(dim=-1))
        # selected rather than weighted: MeanMetric of torchmetrics 1.9 ignores weights where NaN are let through
        self.same_wrong_rate.update(equal[both_wrong])
        self.spearman.update(_rank_correlation(student, teacher))

    def compute(self) -> dict[str, Tensor]:
        """Return all four over everything since the last call, and start anew."""
        names = ("agreement", "teacher_kl", "same_wrong_rate", "spearman")
        return _compute({name: getattr(self, name) for name in names})


def _rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """The Spearman correlation of each row of ``[B, K]`` logits, without rows that are constant on a side."""
    varies = (one != one[:, :1]).any(dim=-1) & (other != other[:, :1]).any(dim=-1)
    first, second = _ranks(one[varies]), _ranks(other[varies])
    norms = torch.linalg.vector_norm(torch.stack([first, second]), dim=-1)
    correlation: Tensor = (first * second).sum(dim=-1) / norms.prod(dim=0)
    return correlation


def _ranks(logits: Tensor) -> Tensor:
    """``[B, K]`` ranks in each row, equal logits at their mean rank, around 0."""
    ordered = logits.sort(dim=-1).values.contiguous()
    below, not_above = (torch.searchsorted(ordered, logits.contiguous(), right=right) for right in (False, True))
    return (below + not_above - logits.shape[-1]).double() / 2


class MemberMetrics(nn.Module):
    """What the members of an ensemble do on their own: accuracy of each, and how often two of them disagree.

    ``<member>_accuracy`` and ``disagreement`` (share of different answers, mean over all pairs) in [0, 1].

    Args:
        names: of the members; none computes nothing.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        keys = [f"{name}_accuracy" for name in names] + (["disagreement"] if len(names) > 1 else [])
        self.means = nn.ModuleDict({key: _mean() for key in keys})

    def update(self, members: Sequence[Tensor], label: Tensor) -> None:
        """Add the ``[B, K]`` logits of each member and the ``[B]`` class indices."""
        answers = [logits.argmax(dim=-1) for logits in members]
        values = [answer == label for answer in answers]
        if len(answers) > 1:
            pairs = [first != second for first, second in itertools.combinations(answers, 2)]
            values.append(torch.stack(pairs))
        for mean, value in zip(self.means.values(), values, strict=True):
            mean.update(value.double())  # type: ignore[operator]  # a ModuleDict has modules, not metrics

    def compute(self) -> dict[str, Tensor]:
        """Return the shares since the last call, and start anew."""
        return _compute(cast("dict[str, Metric]", dict(self.means.items())))


class PerClassMetrics(nn.Module):
    """Confusion matrix and per-class precision, recall and F1 of a split.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"num_classes": num_classes, "validate_args": False}
        self.confusion = MulticlassConfusionMatrix(**options)
        self.scores = MetricCollection(
            {
                "precision": MulticlassPrecision(average="none", **options),
                "recall": MulticlassRecall(average="none", **options),
                "f1": MulticlassF1Score(average="none", **options),
            }
        )

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Add ``[B, K]`` logits and ``[B]`` class indices; B may be 0."""
        if len(label) == 0:
            return
        prediction = logits.argmax(dim=-1)
        self.confusion.update(prediction, label)
        self.scores.update(prediction, label)

    def compute(self) -> dict[str, Any]:
        """Return lists: ``confusion_matrix`` [true class][predicted class] in samples, scores by class; start anew."""
        report: dict[str, Any] = {"confusion_matrix": self.confusion.compute().tolist()}
        report["per_class"] = {name: value.tolist() for name, value in self.scores.compute().items()}
        self.confusion.reset()
        self.scores.reset()
        return report


class EpochMeans:
    """Sample-weighted means of named scalars over an epoch, on the device, without waiting for it.

    They survive a resume in mid-epoch: the mean of the interrupted epoch is the one of the uninterrupted run.
    (Lightning's own epoch averages cover only the batches after the resume.)
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self._sums = torch.zeros(0, dtype=torch.float64)  # of each value times samples
        self._samples = 0

    def add(self, values: dict[str, Tensor], samples: int) -> None:
        """Add scalars that are means over `samples` samples.

        Raises:
            UsageError: if their names are not those of the epoch so far.
        """
        if self.names and tuple(values) != self.names:
            raise UsageError(
                f"the terms of a step are {', '.join(values)}, but were {', '.join(self.names)} before; return "
                "the same terms in every step of an epoch, 0 where one does not count"
            )
        stacked = torch.stack([value.detach() for value in values.values()]).double()
        if not self.names:
            self.names, self._sums = tuple(values), torch.zeros_like(stacked)
        self._sums = self._sums.to(stacked.device).add_(stacked, alpha=samples)
        self._samples += samples

    def compute(self) -> dict[str, Tensor]:
        """Return the means, over all processes, and start anew."""
        totals = self._totals()
        means = {name: totals[i] / totals[-1] for i, name in enumerate(self.names)}
        self.names, self._sums, self._samples = (), torch.zeros(0, dtype=torch.float64), 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """The totals over all processes; every process must call this."""
        return {"names": list(self.names), "totals": self._totals().cpu()}

    def load_state_dict(self, state: dict[str, Any], is_first_process: bool) -> None:
        """Continue from saved totals; they are counted once, by the first process."""
        totals = state["totals"] if is_first_process else torch.zeros_like(state["totals"])
        self.names = tuple(state["names"])
        self._sums, self._samples = totals[:-1].clone(), int(totals[-1]) if self.names else 0

    def _totals(self) -> Tensor:
        """The sums and, behind them, the number of samples, over all processes; nothing where nothing was added."""
        if not self.names:
            return self._sums
        totals = torch.cat([self._sums, self._sums.new_tensor([self._samples])])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(totals)
        return totals


def _mean() -> MeanMetric:
    """A mean in float64 that a NaN makes NaN."""
    mean = MeanMetric(nan_strategy="disable")
    mean.set_dtype(torch.float64)
    return mean


def _compute(metrics: Mapping[str, Metric]) -> dict[str, Tensor]:
    """The values since the last call; the metrics start anew."""
    values = {name: metric.compute() for name, metric in metrics.items()}
    for metric in metrics.values():
        metric.reset()
    return values
