"""How many multiply-adds one training image costs: student forward and backward, teacher forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdlab.profiling.isolation import isolated, noise_image
from kdlab.profiling.own_count import MultiplyAdds, attention_as_products


@dataclass(frozen=True)
class TrainingMACs:
    """Multiply-adds per training image; loss, adapters and optimizer are not in it.

    Attributes:
        student_forward_macs: of the answers of all networks that are trained.
        student_backward_macs: of the gradients of their weights, and of their layers' inputs where something before
            them is trained: about twice the forward pass.
        teacher_forward_macs: of the answers of all networks of the teachers; 0 without a teacher. A teacher that
            remembers its answers computes less.
    """

    student_forward_macs: int
    student_backward_macs: int
    teacher_forward_macs: int

    @property
    def total(self) -> int:
        """Of one image in one step."""
        return self.student_forward_macs + self.student_backward_macs + self.teacher_forward_macs


def training_macs(
    trained: Sequence[nn.Module], teachers: Sequence[nn.Module], image_shape: tuple[int, int, int]
) -> TrainingMACs:
    """Count one training image of ``(C, H, W)`` on copies of the networks.

    Args:
        trained: the networks that learn; parameters that need no gradient cost none.
        teachers: networks, or teachers: the networks in them are counted, each as often as it is listed.
        image_shape: (C, H, W).
    """
    forward = backward = asked = 0
    for network in trained:
        with isolated(network) as learning:
            counts = _count(learning, noise_image(learning, image_shape))
        forward, backward = forward + counts[0], backward + counts[1]
    for network in (network for teacher in teachers for network in teacher_networks(teacher)):
        with isolated(network) as answering:
            asked += _count(answering.requires_grad_(False), noise_image(answering, image_shape))[0]
    return TrainingMACs(forward, backward, asked)


def teacher_networks(teacher: nn.Module) -> list[nn.Module]:
    """Return the networks that answer in `teacher`: its ``network``, or those of its parts, or itself."""
    own = getattr(teacher, "network", None)
    if isinstance(own, nn.Module):
        return [own]
    nested = [child for child in teacher.modules() if isinstance(getattr(child, "network", None), nn.Module)]
    return [child.network for child in nested] or [teacher]  # type: ignore[misc]


def _count(network: nn.Module, image: Tensor) -> tuple[int, int]:
    """Forward and backward of one image. Eval mode multiplies as much as training mode and needs no second image."""
    with torch.no_grad():
        network(image)  # what a network does once only, at its first image, is not counted
    with attention_as_products(), MultiplyAdds() as counter:
        logits = network(image)
        forward = counter.macs
        if logits.requires_grad:
            logits.sum().backward()
    return forward, counter.macs - forward
