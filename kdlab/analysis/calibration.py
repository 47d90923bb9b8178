"""Whether a network's confidence can be believed.

Shapes: N samples, K classes. Confidence is the probability of the class that the network answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from kdlab.analysis.inputs import NO_SAMPLES, Floats, Integers, Values, mean, read_labels, read_logits

BINS = 15


@dataclass(frozen=True)
class ReliabilityBins:
    """The reliability diagram: 15 bins of equal width over the confidence.

    A bin holds its lower edge but not its upper one; the last holds both.

    Attributes:
        edges: the 16 limits, 0 to 1.
        count: samples in each bin.
        confidence: mean confidence of each bin, None in an empty one.
        accuracy: share of right answers in each bin, None in an empty one.
    """

    edges: tuple[float, ...]
    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class Calibration:
    """How well the probabilities of one network fit what happens on one split.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017 (ECE with 15 bins, temperature scaling);
    Brier, Verification of Forecasts Expressed in Terms of Probability, 1950.

    Attributes:
        n: samples.
        accuracy: share of right answers.
        confidence: mean confidence; above the accuracy: overconfident.
        nll: mean negative log-likelihood of the label, in nats.
        brier: mean squared distance of the probabilities from the one-hot label, summed over classes: 0 ... 2.
        ece: expected calibration error: mean of ``|accuracy - confidence|`` over the bins, weighted by their samples.
        optimal_temperature: divides the logits so that the NLL of this very split is smallest; above 1:
            overconfident. A diagnosis: to report a calibrated network, fit it on other images.
        bins: the reliability diagram.
        undefined: field that is None, or holds None -> why.
    """

    n: int
    accuracy: float | None
    confidence: float | None
    nll: float | None
    brier: float | None
    ece: float | None
    optimal_temperature: float | None
    bins: ReliabilityBins
    undefined: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_logits(cls, logits: Values, labels: Values) -> Calibration:
        """Measure the calibration of ``[N, K]`` logits on samples with ``[N]`` labels.

        Example:
            >>> sure_to_nine_tenths = np.log([[9.0, 1.0]] * 4)
            >>> found = Calibration.from_logits(sure_to_nine_tenths, np.array([0, 0, 0, 1]))  # right three times
            >>> round(found.ece, 4), round(found.optimal_temperature, 4)  # 0.9 - 0.75; ln 9 / T = ln 3
            (0.15, 2.0)

        Raises:
            UsageError: if shapes, labels or values do not fit.
        """
        z = read_logits(logits, "logits")
        truth = read_labels(labels, "labels", z)
        rows = np.arange(len(z))
        p: Floats = softmax(z, axis=1)
        one_hot = np.eye(z.shape[1])[truth]
        confidence, right = p.max(axis=1), (z.argmax(axis=1) == truth).astype(np.float64)
        bins = _fill_bins(confidence, right)
        temperature, why_no_temperature = optimal_temperature(z, truth)
        undefined = {} if temperature is not None else {"optimal_temperature": why_no_temperature}
        empty = bins.count.count(0)
        if empty:
            undefined["bins"] = f"{empty} of {BINS} bins hold no samples"
        if not len(z):
            undefined |= dict.fromkeys(("accuracy", "confidence", "nll", "brier", "ece"), NO_SAMPLES)
        return cls(
            n=len(z),
            accuracy=mean(right),
            confidence=mean(confidence),
            nll=mean(-log_softmax(z, axis=1)[rows, truth]),
            brier=mean(((p - one_hot) ** 2).sum(axis=1)),
            ece=_expected_error(bins),
            optimal_temperature=temperature,
            bins=bins,
            undefined=undefined,
        )


def optimal_temperature(logits: Floats, labels: Integers) -> tuple[float | None, str]:
    """Return the temperature of the smallest NLL, or None and why there is none.

    The NLL is convex in beta = 1 / T. Its slope, the mean of E_p[z] - z_label, rises from the mean over classes
    (beta = 0) to the highest logit (beta -> infinity) in place of E_p[z]: the signs at both ends say whether a
    minimum exists, and the root of the slope is it.
    """
    scale = np.abs(logits).max(initial=0.0)
    if not len(logits):
        return None, NO_SAMPLES
    z = logits / scale if scale else logits
    label_z = z[np.arange(len(z)), labels]

    def slope(beta: float) -> float:
        return float(((softmax(beta * z, axis=1) * z).sum(axis=1) - label_z).mean())

    if (z.max(axis=1) == label_z).all():
        return None, "every label has the highest logit: the NLL falls without end as T goes to 0"
    if slope(0.0) >= -1e-12:  # of logits scaled into -1 ... 1
        return None, "the labels have no higher logits than other classes: the NLL falls without end as T grows"
    above = 1.0
    while slope(above) < 0:
        above *= 2
    return float(scale / brentq(slope, above / 2 if above > 1 else 0.0, above, xtol=1e-15)), ""


def _fill_bins(confidence: Floats, right: Floats) -> ReliabilityBins:
    edges = np.linspace(0, 1, BINS + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
    groups = [index == b for b in range(BINS)]
    return ReliabilityBins(
        edges=tuple(edges.tolist()),
        count=tuple(int(group.sum()) for group in groups),
        confidence=tuple(mean(confidence[group]) for group in groups),
        accuracy=tuple(mean(right[group]) for group in groups),
    )


def _expected_error(bins: ReliabilityBins) -> float | None:
    filled = [
        (count, abs(accuracy - confidence))
        for count, confidence, accuracy in zip(bins.count, bins.confidence, bins.accuracy, strict=True)
        if confidence is not None and accuracy is not None
    ]
    total = sum(count for count, _ in filled)
    return sum(count * gap for count, gap in filled) / total if total else None
