"""Several teachers as one.

Shapes: B images, K classes, M teachers.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdlab.errors import UsageError
from kdlab.losses.base import positive_temperature
from kdlab.teachers.base import Teacher
from kdlab.types import Batch, Outputs


class TeacherEnsemble(Teacher):
    r"""The mean answer of several teachers; what each of them said stays visible as a member.

    Averaging probabilities and averaging logits are different things: the first lets a confident teacher count for
    what it says, the second is the geometric mean of the probabilities. Answers are logits in either case: of
    softened probabilities, :math:`T \log \frac1M \sum_m \sigma(z_m / T)`, which a loss of temperature T turns into
    the mean of the teachers' softened probabilities (one that divides the logits by T, as `SoftTargets`). In
    evaluation the probabilities are averaged at temperature 1, whatever the loss.

    Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, 2015, section 2 (either mean).

    Args:
        teachers: two or more.
        average: what is averaged.
        temperature: of the probabilities that are averaged; None for that of the method's loss.

    Raises:
        UsageError: if there are fewer than two teachers, or the temperature is not positive.
    """

    def __init__(
        self,
        teachers: list[Teacher],
        average: Literal["probabilities", "logits"] = "probabilities",
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        if len(teachers) < 2:
            raise UsageError(f"TeacherEnsemble got {len(teachers)} teacher(s); list two or more, or use one without it")
        if any(teacher.learns for teacher in teachers):
            raise UsageError("a teacher that learns along with the student cannot be part of a TeacherEnsemble")
        self.teachers = nn.ModuleList(teachers)
        self.average = average
        self.temperature = None if temperature is None else positive_temperature(temperature)

    def forward(self, batch: Batch) -> Outputs:
        """Answer with the mean ``[B, K]`` logits and the members' outputs; probabilities at temperature 1."""
        return self._together(tuple(teacher(batch) for teacher in self.teachers), temperature=1.0)

    def teach(self, batch: Batch) -> Outputs:
        """Answer a batch of training images: probabilities at the temperature of the loss, as far as remembered."""
        members = tuple(teacher.teach(batch) for teacher in self._all())
        return self._together(members, 1.0 if self.temperature is None else self.temperature)

    def equals(self, other: Teacher) -> bool:
        """Whether both average the answers of equal teachers alike."""
        return self is other or (
            isinstance(other, TeacherEnsemble)
            and (self.average, self.temperature, len(self.teachers))
            == (other.average, other.temperature, len(other.teachers))
            and all(mine.equals(its) for mine, its in zip(self._all(), other._all(), strict=True))
        )

    def extra_repr(self) -> str:
        """See `torch.nn.Module.extra_repr`."""
        return f"average={self.average}, temperature={self.temperature}"

    def _together(self, members: tuple[Outputs, ...], temperature: float) -> Outputs:
        logits = torch.stack([member.logits.float() for member in members])  # [M, B, K]
        return Outputs(self._mean(logits, temperature), members=members)

    def _mean(self, logits: Tensor, temperature: float) -> Tensor:
        if self.average == "logits":
            return logits.mean(dim=0)
        log_p = torch.log_softmax(logits / temperature, dim=-1)
        return temperature * (torch.logsumexp(log_p, dim=0) - torch.tensor(float(len(logits))).log())

    @property
    def ready(self) -> bool:
        """Whether all teachers are."""
        return all(teacher.ready for teacher in self._all())

    def asked_networks(self) -> list[tuple[nn.Module, float]]:
        """Return those of all teachers."""
        return [asked for teacher in self._all() for asked in teacher.asked_networks()]

    def load(self) -> None:
        """Load all teachers."""
        for teacher in self._all():
            teacher.load()

    def start(self, student: nn.Module) -> None:
        """Let all teachers meet the student."""
        for teacher in self._all():
            teacher.start(student)

    def soften(self, temperature: float) -> None:
        """Average at this temperature, unless another one was given; ensembles among the teachers too."""
        if self.temperature is None:
            self.temperature = temperature
        for teacher in self._all():
            teacher.soften(self.temperature)

    def _all(self) -> Sequence[Teacher]:
        return list(self.teachers)  # type: ignore[arg-type]
