"""Our own count of multiply-adds, operator by operator as torch runs them, backward pass included.

Both libraries count the backward pass of grouped convolutions wrongly (by 3 to 10 times on MobileNet and ConvNeXt).
Here every matrix product and convolution that autograd really runs is counted, so layers that need no gradient,
and the first layer's input, cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kdlab.profiling.operators import OperatorWatch

aten = torch.ops.aten


class MultiplyAdds(OperatorWatch):  # type: ignore[no-untyped-call]
    """Count the multiply-adds of convolutions and matrix products while active, in ``macs``.

    Use it inside `attention_as_products`, so that attention arrives as two matrix products.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def saw(self, operator: Any, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:  # noqa: ANN401
        """Count one operator."""
        if count := COUNTED.get(operator.overloadpacket):
            self.macs += count(output, *inputs)


@contextmanager
def attention_as_products() -> Iterator[None]:
    """Run attention as the matrix products it consists of: fused kernels hide them from every counter."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def _matrix_product(out: Tensor, a: Tensor, b: Tensor) -> int:
    return out.numel() * a.shape[-1]


def _matrix_product_plus(out: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> int:
    return out.numel() * a.shape[-1]


def _convolution(
    out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, *_: object,
) -> int:  # fmt: skip
    """Each position, of the output or of a transposed convolution's input, costs one pass over the weights."""
    positions = x if transposed else out
    return positions.numel() // positions.shape[1] * weight.numel()


def _convolution_backward(
    out: Sequence[Tensor | None], gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: Sequence[int] | None,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    output_padding: Sequence[int], groups: int, wanted: Sequence[bool],
) -> int:  # fmt: skip
    """The gradients of input and weight, each where wanted, cost as much as the forward pass."""
    once = _convolution(gradient, x, weight, None, stride, padding, dilation, transposed)
    return once * (wanted[0] + wanted[1])


COUNTED: dict[Any, Callable[..., int]] = {
    aten.mm: _matrix_product,
    aten.bmm: _matrix_product,
    aten.mv: _matrix_product,
    aten.dot: _matrix_product,
    aten.addmm: _matrix_product_plus,
    aten.baddbmm: _matrix_product_plus,
    aten.addmv: _matrix_product_plus,
    aten.convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
}
