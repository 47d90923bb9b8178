"""Tensors with which the forward code of one network computes several networks of its architecture at once.

The members' maps lie side by side in the channels, ``[B, M * C, H, W]``: a convolution of every member is then one
grouped convolution, a batch norm one over M * C channels, a linear layer one batched product. The forward code of the
network runs, unchanged, on tensors that know this (`_Maps`). They allow the operations of `_RULES`, which keep the
members apart, and refuse every other, so that a network with, say, a channel shuffle is never computed wrongly: it is
not fused. `torch.func.vmap` would accept more networks, but was slower on a CPU than one network after the other.

Shapes: B images, M members, C channels, H x W pixels, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Callable[..., Any]


class NotFusable(Exception):  # noqa: N818 (a finding, not an error: the members run one by one)
    """These networks cannot run as one; the message says why."""


class _Grouped(Tensor):
    """A tensor that holds the values of several members next to each other; only `_RULES` may touch it."""

    members: int

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        rule = _RULES.get(func)
        if rule is None:
            raise NotFusable(f"{getattr(func, '__name__', func)} is not known to keep members apart")
        with torch._C.DisableTorchFunctionSubclass():
            return rule(func, *args, **(kwargs or {}))


class _Maps(_Grouped):
    """Activations ``[B, M * C, ...]`` of M members; M is 1 as long as all members share them."""


class _Weights(_Grouped):
    """A parameter or buffer of M members, joined along its first dimension."""


def side_by_side(tensor: Tensor, members: int) -> _Maps:
    """Mark ``[B, M * C, ...]`` activations as those of M members; M = 1 where all members share them."""
    maps: _Maps = tensor.as_subclass(_Maps)
    maps.members = members
    return maps


def joined(tensors: Sequence[Tensor]) -> _Weights:
    """Join one parameter or buffer of every member along its first dimension."""
    tensor = torch.cat(list(tensors)) if tensors[0].dim() else torch.stack(list(tensors))
    weights: _Weights = tensor.as_subclass(_Weights)
    weights.members = len(tensors)
    return weights


def separated(output: object, members: int) -> Tensor:
    """Return ``[B, M * K]`` activations as plain logits ``[M, B, K]``."""
    maps = _maps_of(output, members)
    with torch._C.DisableTorchFunctionSubclass():
        if maps.dim() != 2:
            raise NotFusable(f"the networks return {maps.dim()} dimensions instead of logits [B, K]")
        return maps.as_subclass(Tensor).view(len(maps), members, -1).transpose(0, 1)


# -- the operations that keep members apart ------------------------------------------------------------------


def _maps_of(value: object, members: int | None = None) -> _Maps:
    """Return `value` if it is maps, repeated for `members` where all shared it."""
    if not isinstance(value, _Maps):
        raise NotFusable("a tensor that is no activation of a member takes part")
    if members is None or value.members == members:
        return value
    return side_by_side(value.repeat(1, members, *[1] * (value.dim() - 2)), members)


def _weights_of(value: object) -> _Weights:
    if not isinstance(value, _Weights):
        raise NotFusable("a layer works with weights that are no parameter of it")
    return value


def _refuse_tensors(*values: object) -> None:
    if any(isinstance(value, Tensor) for value in values):
        raise NotFusable("a parameter is used outside of a convolution, batch norm or linear layer")


def _entrywise(func: Rule, maps: object, *args: object, **kwargs: object) -> _Maps:
    """Entry by entry: activations, dropout."""
    _refuse_tensors(*args, *kwargs.values())
    maps = _maps_of(maps)
    return side_by_side(func(maps, *args, **kwargs), maps.members)


def _within_channels(func: Rule, maps: object, *args: object, **kwargs: object) -> _Maps:
    """Within each channel of ``[B, M * C, H, W]``: pools; of other ranks PyTorch takes the channels for rows."""
    if _maps_of(maps).dim() != 4:
        raise NotFusable(f"{func.__name__} works on {_maps_of(maps).dim()} dimensions")
    return _entrywise(func, maps, *args, **kwargs)


def _pad(func: Rule, maps: object, pad: Sequence[int], *args: object, **kwargs: object) -> _Maps:
    if len(pad) > 2 * (_maps_of(maps).dim() - 2):
        raise NotFusable("channels are padded")
    return _entrywise(func, maps, pad, *args, **kwargs)


def _binary(func: Rule, left: object, right: object) -> _Maps:
    if isinstance(left, int | float) or isinstance(right, int | float):
        maps, number = (right, left) if isinstance(left, int | float) else (left, right)
        maps = _maps_of(maps)
        return side_by_side(func(maps, number), maps.members)
    left, right = _maps_of(left), _maps_of(right)
    if left.dim() != right.dim() or _shape(Tensor.size, left, 1) != _shape(Tensor.size, right, 1):
        raise NotFusable("maps of unequal rank or channels are combined")
    members = max(left.members, right.members)
    if func in _IN_PLACE and left.members < members:
        raise NotFusable("what all members share is changed for each of them")
    return side_by_side(func(_maps_of(left, members), _maps_of(right, members)), members)


def _mean(func: Rule, maps: object, dim: int | Sequence[int] = (), keepdim: bool = False) -> _Maps:
    maps = _maps_of(maps)
    dims = [dim] if isinstance(dim, int) else list(dim)
    if not dims or any(d % maps.dim() < 2 for d in dims):
        raise NotFusable("a mean goes over images or channels")
    return side_by_side(func(maps, dims, keepdim=keepdim), maps.members)


def _flatten(func: Rule, maps: object, start_dim: int = 0, end_dim: int = -1) -> _Maps:
    maps = _maps_of(maps)
    if start_dim != 1 or end_dim not in (-1, maps.dim() - 1):
        raise NotFusable("flatten keeps more than the images apart")
    return side_by_side(func(maps, start_dim, end_dim), maps.members)


def _view(func: Rule, maps: object, *shape: int) -> _Maps:
    maps = _maps_of(maps)
    if shape != (len(maps), -1):
        raise NotFusable("a view does more than to flatten")
    return side_by_side(func(maps, *shape), maps.members)


def _shape(func: Rule, maps: object, *dim: int) -> torch.Size | int:
    """The shape for one member, which is what its forward code asks for."""
    maps = _maps_of(maps)
    batch, channels, *rest = Tensor.size(maps)
    shape = torch.Size((batch, channels // maps.members, *rest))
    return shape[dim[0]] if dim else shape


def _conv2d(
    func: Rule, maps: object, weight: object, bias: Tensor | None = None, stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0, dilation: int | tuple[int, ...] = 1, groups: int = 1,
) -> _Maps:  # fmt: skip
    weight = _weights_of(weight)
    # Maps that all share need no groups: every member's filters read all channels.
    maps = _maps_of(maps) if groups == 1 else _maps_of(maps, weight.members)
    bias = None if bias is None else _weights_of(bias)
    result = func(maps, weight, bias, stride, padding, dilation, groups * maps.members)
    return side_by_side(result, weight.members)


def _linear(func: Rule, maps: object, weight: object, bias: Tensor | None = None) -> _Maps:
    maps, weight = _maps_of(maps), _weights_of(weight)
    members = weight.members
    if maps.dim() != 2:
        raise NotFusable("a linear layer reads more than one vector per image")
    bias = None if bias is None else _weights_of(bias)
    if maps.members == 1:
        return side_by_side(func(maps, weight, bias), members)
    vectors = maps.view(len(maps), members, -1).transpose(0, 1)  # [M, B, D]
    matrices = weight.view(members, -1, weight.shape[1]).transpose(1, 2)  # [M, D, K]
    if bias is None:
        result = torch.bmm(vectors, matrices)
    else:
        result = torch.baddbmm(bias.view(members, 1, -1), vectors, matrices)
    return side_by_side(result.transpose(0, 1).flatten(1), members)


def _batch_norm(
    func: Rule, maps: object, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, *args: object, **kwargs: object,
) -> _Maps:  # fmt: skip
    given = [_weights_of(tensor) for tensor in (running_mean, running_var, weight, bias) if tensor is not None]
    maps = _maps_of(maps, given[0].members if given else None)
    result = func(maps, running_mean, running_var, weight, bias, *args, **kwargs)
    return side_by_side(result, maps.members)


def _asked(func: Rule, tensor: object) -> object:
    """What is the same for one member and for all: rank, device, type."""
    return func(tensor)


_ENTRYWISE = (
    F.relu, torch.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.hardtanh,
    torch.sigmoid, torch.tanh, Tensor.relu, Tensor.sigmoid, Tensor.tanh, Tensor.contiguous, F.dropout,
)  # fmt: skip
_WITHIN_CHANNELS = (F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.dropout2d)
_IN_PLACE = (Tensor.add_, Tensor.mul_, Tensor.__iadd__, Tensor.__imul__)
_BINARY = (
    Tensor.add, Tensor.__add__, Tensor.__radd__, torch.add, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.mul,
    *_IN_PLACE,
)  # fmt: skip
_ASKED = (
    Tensor.dim, Tensor.__len__, Tensor.ndim.__get__, Tensor.device.__get__, Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__, Tensor.requires_grad.__get__,  # type: ignore[attr-defined]
)  # fmt: skip
_RULES: dict[Any, Rule] = {
    **dict.fromkeys(_ENTRYWISE, _entrywise),
    **dict.fromkeys(_WITHIN_CHANNELS, _within_channels),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_ASKED, _asked),
    **dict.fromkeys((Tensor.mean, torch.mean), _mean),
    **dict.fromkeys((Tensor.flatten, torch.flatten), _flatten),
    **dict.fromkeys((Tensor.view, Tensor.reshape), _view),
    **dict.fromkeys((Tensor.size, Tensor.shape.__get__), _shape),  # type: ignore[attr-defined]
    F.pad: _pad,
    F.conv2d: _conv2d,
    F.linear: _linear,
    F.batch_norm: _batch_norm,
}
