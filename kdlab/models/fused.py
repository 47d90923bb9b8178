"""Networks of one architecture, run as one: their weights are joined for the pass and their forward code runs once.

Shapes: B images, M members, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdlab.models.member_maps import NotFusable, joined, separated, side_by_side

_STATE = frozenset(vars(nn.Module()))  # parameters, hooks, mode: what every module has, and no setting of it
_PLACEHOLDER = torch.empty(0, device="meta")

Row = tuple[nn.Module, ...]  # the same module of every member
Tensors = dict[str, Tensor | None]  # of one module: name -> parameter or buffer


class _Slot(NamedTuple):
    """Where the computation finds a tensor, and where the members keep theirs."""

    fused: Tensors
    name: str
    members: list[Tensors]


class FusedNetworks:
    """One computation for several networks, which keep their parameters and buffers.

    A copy of the first network without weights does the forward pass. Its weights are, for the length of a pass, those
    of all networks joined: gradients flow back through the joining, and running statistics are written back. Without
    gradients the joined weights are kept until one of them changes (a write through ``.data`` is not seen).

    Not a module: it owns nothing that is trained or saved.

    Args:
        networks: the networks, in the order of the members.

    Raises:
        NotFusable: if they differ in more than the values of their weights.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.members = len(networks)
        self._rows = _rows(networks)
        self._members = [module for row in self._rows for module in row]
        no_weights = {id(t): _PLACEHOLDER for t in [*networks[0].parameters(), *networks[0].buffers()]}
        self._skeleton = copy.deepcopy(networks[0], no_weights)
        self._modules = list(self._skeleton.modules())
        self._slots = [
            slot for module, row in zip(self._modules, self._rows, strict=True) for slot in _slots(module, row)
        ]
        self._batch_norms = [
            (module, row)
            for module, row in zip(self._modules, self._rows, strict=True)
            if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None
        ]
        self._kept: list[tuple[Tensor, int, int]] | None = None  # the weights whose joined copies we still hold
        self.largest_map = 0  # values for one image in the largest output of a module, all members together

    def still_fits(self) -> bool:
        """Whether every module trains in all members or in none, and no hook looks inside."""
        return all(len({module.training for module in row}) == 1 for row in self._rows) and not is_hooked(self._members)

    def try_out(self, image: Tensor) -> None:
        """Run a small part of a batch as `__call__` would, without any effect but `largest_map`.

        Raises:
            NotFusable: if the forward code does what is not known to keep the members apart, or fails.
        """
        image = image[..., :2, :, :, :]  # two, for batch norm in training
        sizes: list[int] = []

        def note_size(module: nn.Module, args: object, output: object) -> None:
            with torch._C.DisableTorchFunctionSubclass():
                if isinstance(output, Tensor):
                    sizes.append(output.numel() // len(output))

        hooks = [module.register_forward_hook(note_size) for module in self._modules]
        devices = [image.device] if image.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices), torch.no_grad():
                self._forward(image)
        except NotFusable:
            raise
        except Exception as error:  # one of the network's own comes again, with its own shapes, when it runs alone
            reason = str(error).partition("\n")[0]
            raise NotFusable(f"their forward code fails on joined maps ({type(error).__name__}: {reason})") from error
        finally:
            for hook in hooks:
                hook.remove()
            self._release()
        self.largest_map = max(sizes)

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits ``[M, B, K]`` of images ``[B, C, H, W]``, the same for all, or ``[M, B, C, H, W]``."""
        logits = self._forward(image)
        self._write_back()
        if self._kept is None:
            self._release()
        return logits

    def _forward(self, image: Tensor) -> Tensor:
        for module, row in zip(self._modules, self._rows, strict=True):
            module.training = row[0].training
        weights = None if torch.is_grad_enabled() else self._versions()
        if not _unchanged(weights, self._kept):
            self._join()
        self._kept = weights
        if image.dim() == 5:
            return separated(
                self._skeleton(side_by_side(image.transpose(0, 1).flatten(1, 2), self.members)), self.members
            )
        return separated(self._skeleton(side_by_side(image, 1)), self.members)

    def _join(self) -> None:
        for fused, name, members in self._slots:
            fused[name] = joined([tensors[name] for tensors in members])  # type: ignore[misc]  # none is None
        for module, _ in self._batch_norms:
            module._buffers["num_batches_tracked"] = torch.zeros((), dtype=torch.int64)

    def _write_back(self) -> None:
        """Give the members what batch norm has changed in training: running statistics and the number of batches."""
        for module, row in self._batch_norms:
            batches = int(module.num_batches_tracked)  # type: ignore[arg-type]
            if not batches:
                continue
            for name in ("running_mean", "running_var"):
                parts = module._buffers[name].as_subclass(Tensor).chunk(self.members)  # type: ignore[union-attr]
                for member, part in zip(row, parts, strict=True):
                    member._buffers[name].copy_(part)  # type: ignore[union-attr]
            for member in row:
                member._buffers["num_batches_tracked"].add_(batches)  # type: ignore[union-attr]

    def _release(self) -> None:
        """Let go of the joined weights, which hold the graph of the pass."""
        for fused, name, _ in self._slots:
            fused[name] = _PLACEHOLDER
        self._kept = None

    def _versions(self) -> list[tuple[Tensor, int, int]] | None:
        """Identify the weights' present values; None where PyTorch does not count their changes."""
        tensors = [
            tensor
            for _, name, members in self._slots
            for tensor in (own[name] for own in members)
            if tensor is not None
        ]
        if any(tensor.is_inference() for tensor in tensors):
            return None
        return [(tensor, tensor.data_ptr(), tensor._version) for tensor in tensors]


def _unchanged(now: list[tuple[Tensor, int, int]] | None, before: list[tuple[Tensor, int, int]] | None) -> bool:
    if now is None or before is None:
        return False
    return all(a[0] is b[0] and a[1:] == b[1:] for a, b in zip(now, before, strict=True))


def is_hooked(modules: Sequence[nn.Module]) -> bool:
    """Whether somebody looks into one of these modules, by a hook or in the place of its ``forward`` (`Taps`)."""
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        for module in modules
    )


def _slots(module: nn.Module, row: Row) -> list[_Slot]:
    slots = []
    for kind in ("_parameters", "_buffers"):
        for name, tensor in getattr(row[0], kind).items():
            if tensor is None or (isinstance(module, _BatchNorm) and name == "num_batches_tracked"):
                continue
            slots.append(_Slot(getattr(module, kind), name, [getattr(member, kind) for member in row]))
    return slots


# -- are they equal? -----------------------------------------------------------------------------------------


def _rows(networks: Sequence[nn.Module]) -> list[Row]:
    """Line up the modules of the networks, checked to be equal but for the values of their weights."""
    columns = [dict(network.named_modules()) for network in networks]
    if any(list(column) != list(columns[0]) for column in columns):
        raise NotFusable("their modules differ")
    for path in columns[0]:
        reason = _difference(tuple(column[path] for column in columns))
        if reason:
            raise NotFusable(f"{path or 'the network'}: {reason}")
    owned = [
        id(thing) for network in networks for thing in (*network.modules(), *network.parameters(), *network.buffers())
    ]
    if len(set(owned)) < len(owned):
        raise NotFusable("they share a module or weights")
    return list(zip(*(column.values() for column in columns), strict=True))


def _difference(row: Row) -> str:
    """Say what keeps these modules, one of each member, from being one; empty if nothing does."""
    first = row[0]
    if any(type(module) is not type(first) for module in row):
        return "the members have modules of other classes"
    if any(_shapes(module) != _shapes(first) for module in row):
        return "the members have weights of other shapes or types"
    settings = _settings(first)
    for module in row:
        other = _settings(module)
        unequal = [n for n in settings.keys() | other.keys() if not _same(settings.get(n), other.get(n))]
        if unequal:
            return f"{unequal[0]} is not, or cannot be shown to be, the same in all members"
    if isinstance(first, _BatchNorm) and first.running_mean is not None:
        if first.momentum is None:
            return "batch norm without momentum averages over a number of batches that may differ"
        if first.num_batches_tracked is None:
            return "batch norm does not count its batches"
    return ""


def _shapes(module: nn.Module) -> dict[str, object]:
    tensors = {**module._parameters, **module._buffers}
    return {name: None if t is None else (t.shape, t.dtype, t.device) for name, t in tensors.items()}


def _settings(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name not in _STATE}


def _same(left: object, right: object) -> bool:
    if isinstance(left, list | tuple) and type(left) is type(right) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, str | int | float | torch.dtype | None) and type(left) is type(right):
        return left == right
    return left is right and not isinstance(left, Tensor)
