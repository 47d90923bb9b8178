"""How many multiply-adds one training image costs: student forward and backward, teacher forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdlab.profiling.counters import count_with_fvcore
from kdlab.profiling.isolation import isolated, noise_image
from kdlab.profiling.own_count import MultiplyAdds, attention_as_products
from kdlab.profiling.results import NotMeasured

Counted = dict[tuple[nn.Module, bool], tuple[int, int]]  # network, whether it learns -> forward and backward


@dataclass(frozen=True)
class TrainingMACs:
    """Multiply-adds per training image; loss, adapters and optimizer are not in it.

    Attributes:
        student_forward_macs: of the answers of all networks that are trained.
        student_backward_macs: of the gradients of their weights, and of their layers' inputs where something before
            them is trained: about twice the forward pass. An upper bound where a step reaches a part of them only.
        teacher_forward_macs: of the answers of all networks of the teachers, mean over the training: a teacher that
            remembers its answers computes fewer; 0 without a teacher.
        teacher_asked_share: how much of that is left of asking all teachers about every image; None without a teacher.
    """

    student_forward_macs: int
    student_backward_macs: int
    teacher_forward_macs: float
    teacher_asked_share: float | None

    @property
    def total(self) -> float:
        """Multiply-adds that one image costs in one step: both passes of the student, and the teacher's."""
        return self.student_forward_macs + self.student_backward_macs + self.teacher_forward_macs


class _Untrustworthy(Exception):  # noqa: N818 (it never leaves this file)
    """A network multiplies and adds in a way that is not counted."""


def training_macs(
    trained: Sequence[nn.Module],
    asked: Sequence[tuple[nn.Module, float]],
    image_shape: tuple[int, int, int],
    counted: Counted | None = None,
) -> TrainingMACs | NotMeasured:
    """Count one training image of ``(C, H, W)`` on copies of the networks.

    Each forward pass is also counted by fvcore: where the counts differ, or where one of them says that it misses
    something, there is a reason instead of a figure.

    Args:
        trained: the networks that learn; parameters that need no gradient cost none.
        asked: the networks of the teachers, each as often as it answers, with the share of the training images about
            which it is really asked.
        image_shape: (C, H, W).
        counted: what is known of earlier calls with the same shape; filled.
    """
    counted = {} if counted is None else counted
    try:
        learning = [_count(network, image_shape, counted) for network in trained]
        teaching = [(_count(network, image_shape, counted, learns=False)[0], share) for network, share in asked]
    except _Untrustworthy as error:
        return NotMeasured(str(error))
    full = sum(macs for macs, _ in teaching)
    really = sum(macs * share for macs, share in teaching)
    return TrainingMACs(
        student_forward_macs=sum(forward for forward, _ in learning),
        student_backward_macs=sum(backward for _, backward in learning),
        teacher_forward_macs=really,
        teacher_asked_share=really / full if full else None,
    )


def _count(
    network: nn.Module, image_shape: tuple[int, int, int], counted: Counted, learns: bool = True
) -> tuple[int, int]:
    """Forward and backward of one image. Eval mode multiplies as much as training mode and needs no second image."""
    if (network, learns) in counted:
        return counted[network, learns]
    with isolated(network) as copied:
        image = noise_image(copied, image_shape)
        if not learns:
            copied.requires_grad_(False)
        forward, backward = _forward_and_backward(copied, image)
        if doubts := count_with_fvcore(copied, image).doubts(forward, "kdlab"):
            raise _Untrustworthy(f"{type(network).__name__}: {'; '.join(doubts)}")
    counted[network, learns] = forward, backward
    return forward, backward


def _forward_and_backward(network: nn.Module, image: Tensor) -> tuple[int, int]:
    with torch.no_grad():
        network(image)  # what a network does once only, at its first image, is not counted
    with attention_as_products(), MultiplyAdds() as counter:
        logits = network(image)
        forward = counter.macs
        if logits.requires_grad:
            logits.sum().backward()
    return forward, counter.macs - forward
