"""Several networks that answer together: their combination, and one batched computation where it is faster.

Shapes: B images, M members, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from kdlab.errors import UsageError
from kdlab.models.fused import FusedNetworks, is_hooked
from kdlab.models.member_maps import NotFusable

Combination = Literal["mean_logits", "mean_probabilities", "vote"]
Fusion = Literal["auto", "always", "never"]

# On a CPU, fused was faster while its largest map had so many values: with fewer the preparation costs more than it
# saves, with more (2 MB in float32, so probably the cache) it was slower. Measured by benchmarks/ensemble.py.
_WORTHWHILE = range(2**12, 2**19 + 1)


def combine(logits: Tensor, rule: Combination) -> Tensor:
    r"""Combine the logits ``[M, B, K]`` of M members to ``[B, K]``, the logits of the ensemble.

    * ``mean_logits``: their mean, a geometric mean of the probabilities.
    * ``mean_probabilities``: :math:`\ln \frac1M \sum_m \sigma(z_m)`.
    * ``vote``: every member gives one vote to its largest logit. A vote has no logits of its own; these are
      :math:`\ln \frac{v_k + \bar p_k}{M + 1}`, the share of the votes where the mean probabilities count as one more
      vote. They decide ties, never against a majority, and keep the logarithm finite. NLL and ECE of a vote depend on
      this choice (ours), its accuracy does so only in ties.

    Half-precision logits are combined in float32.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if rule == "mean_logits":
        return logits.mean(dim=0)
    members = len(logits)
    log_mean = logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(members)
    if rule == "mean_probabilities":
        return log_mean
    if rule == "vote":
        votes = F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=0)
        return ((votes + log_mean.exp()) / (members + 1)).log()
    raise UsageError(f"combination is {rule!r}, but it must be mean_logits, mean_probabilities or vote")


class NetworkEnsemble(nn.Module):
    """Several networks and the rule that makes one answer of theirs.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. The members stay ordinary networks: each has its parameters, gradients
    and running statistics, saved once under ``networks.<m>``.

    Members of one architecture can run fused, as one computation with M times the channels: the same numbers up to
    rounding, except that dropout draws others. Networks with operations that mix channels freely, a hook on a member
    (a tapped layer), members in unequal modes, `torch.compile` and tracing: the members run one by one.

    Args:
        networks: the members.
        combination: ``mean_probabilities``, ``mean_logits`` or ``vote``.
        fusion: ``auto`` runs the members as one where that was measured to be faster: on a CPU, while the largest map
            of all members is small; on other devices, not measured yet, one by one. ``always`` does so wherever it is
            possible, ``never`` runs them one by one.

    Raises:
        UsageError: if there are no networks.
    """

    def __init__(
        self, networks: list[nn.Module], combination: Combination = "mean_probabilities", fusion: Fusion = "auto"
    ) -> None:
        super().__init__()
        if not networks:
            raise UsageError("networks is empty, but an ensemble needs members; list two networks or more")
        self.networks = nn.ModuleList(networks)
        self.combination: Combination = combination
        self.fusion: Fusion = fusion
        self._fused: dict[object, FusedNetworks | None] = {}  # kind of input -> how to run it fused, if at all

    def forward(self, image: Tensor) -> Tensor:
        """Image ``[B, C, H, W]`` -> logits ``[B, K]`` of the ensemble."""
        return combine(self.members(image), self.combination)

    def members(self, image: Tensor) -> Tensor:
        """Return the logits ``[M, B, K]`` of the members.

        Args:
            image: ``[B, C, H, W]``, the same images for all members, or ``[M, B, C, H, W]``, a batch for each.

        Raises:
            UsageError: if the images are no such batch, or the members have different numbers of classes.
        """
        if image.dim() not in (4, 5) or (image.dim() == 5 and len(image) != len(self.networks)):
            raise UsageError(
                f"{len(self.networks)} members got images of shape {list(image.shape)}; "
                f"give them [B, C, H, W], the same for all, or [{len(self.networks)}, B, C, H, W]"
            )
        fused = self._fused_for(image)
        if fused is not None:
            return fused(image)
        images = image if image.dim() == 5 else [image] * len(self.networks)
        logits = [network(own) for network, own in zip(self.networks, images, strict=True)]
        classes = [int(answer.shape[-1]) for answer in logits]  # int: a tracer's sizes are tensors
        if len(set(classes)) > 1:
            shapes = ", ".join(str(list(answer.shape)) for answer in logits)
            raise UsageError(f"the members return logits of shapes {shapes}; give all the same num_classes")
        return torch.stack(logits)

    def runs_fused(self, image: Tensor) -> bool:
        """Whether `members` would now run these images as one computation."""
        return self._fused_for(image) is not None

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; the members are compared anew before they next run fused."""
        self._fused.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies what is found again."""
        return {**self.__dict__, "_fused": {}}

    def _fused_for(self, image: Tensor) -> FusedNetworks | None:
        """Return what runs these images as one computation; None where the members run one by one."""
        batch = image.shape[-4]
        if self.fusion == "never" or len(self.networks) == 1 or not batch or _is_followed():
            return None
        kind = (self.training, image.device, image.dtype, image.dim(), image.shape[-3:])
        if kind not in self._fused:
            if is_hooked(list(self.networks.modules())):
                return None
            self._fused[kind] = self._fuse(image)
        fused = self._fused[kind]
        if fused is None or not fused.still_fits():
            return None
        pays = image.device.type == "cpu" and batch * fused.largest_map in _WORTHWHILE
        return fused if pays or self.fusion == "always" else None

    def _fuse(self, image: Tensor) -> FusedNetworks | None:
        try:
            fused = FusedNetworks(list(self.networks))
            fused.try_out(image)
        except NotFusable as reason:
            if self.fusion == "always":
                raise UsageError(
                    f"fusion is always, but these members cannot run as one: {reason}; set fusion: auto"
                ) from None
            return None
        return fused


def _is_followed() -> bool:
    """Whether a compiler or tracer records what the members do, or a hook for all modules of the process does."""
    recorded: bool = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return recorded or _has_any_global_hook()  # type: ignore[no-untyped-call]
