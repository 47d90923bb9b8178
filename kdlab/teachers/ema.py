"""The student's own past as its teacher."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.models.taps import Taps
from kdlab.teachers.base import Teacher
from kdlab.types import Batch, Outputs


class EMATeacher(Teacher):
    r"""A copy of the student whose weights are the exponential moving average of the student's.

    After optimizer step n (counted from 1; with accumulated gradients a step is one update, not one batch)

    .. math:: w \leftarrow d_n w + (1 - d_n) v, \quad d_n = \min\big(d, 1 - \tfrac{1}{n + 1}\big)

    for teacher weights w, student weights v: the first steps average evenly, so that the random start is forgotten.
    Batch-norm statistics are averaged alike. The teacher is saved and resumed with the student, and answers in eval
    mode.

    Source: Tarvainen & Valpola, Mean teachers are better role models, 2017.

    Args:
        decay: d, the share of the old average that a step keeps; the average reaches back about 1 / (1 - d) steps.

    Raises:
        UsageError: if the decay is no share.
    """

    learns = True

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise UsageError(f"decay is {decay:g}, but it is the share that is kept: choose 0 <= decay < 1")
        self.decay = decay
        self.steps = 0
        self._layers: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether there was a student to copy."""
        return self.network is not None

    def start(self, student: nn.Module) -> None:
        """Begin as a copy of the student."""
        if self.network is None:
            self.network = copy.deepcopy(student).requires_grad_(False).eval()
            self.tap(self._layers)

    def tap(self, layers: Sequence[str]) -> None:
        """Answer with the features of these layers of the student's copy too."""
        self._layers = tuple(layers)
        if self.network is not None:
            self.taps = Taps(self.network, self._layers)

    def forward(self, batch: Batch) -> Outputs:
        """Answer with the ``[B, K]`` logits of the average."""
        return self.taps(batch.image)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move towards the student by one step."""
        assert self.network is not None
        self.steps += 1
        keep = min(self.decay, 1 - 1 / (self.steps + 1))
        new = student.state_dict()
        averages, values, seen = [], [], set()
        for name, average in self.network.state_dict().items():
            if average.data_ptr() in seen:
                continue  # tied weights move once
            seen.add(average.data_ptr())
            if average.is_floating_point():
                averages.append(average)
                values.append(new[name])
            else:
                average.copy_(new[name])  # counters
        torch._foreach_lerp_(averages, values, 1 - keep)  # one launch for all, as in torch.optim.swa_utils

    def get_extra_state(self) -> dict[str, Any]:
        """The number of steps, for the state dict."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue after that many steps."""
        self.steps = state["steps"]
