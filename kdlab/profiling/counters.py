"""Multiply-adds of one forward pass, counted by two independent libraries.

The convention: convolution, linear, matrix product and attention; no bias, no normalisation, no activation, and no
product that is written as a broadcast multiplication and a sum. What is left out although it may multiply and add is
named.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdlab.profiling.hidden_products import uncounted_parameters
from kdlab.profiling.own_count import attention_as_products

Handle = Callable[[Any, Any], Any]  # inputs and outputs of a node of torch's graph -> multiply-adds
NO_MORE: Mapping[str, Handle] = MappingProxyType({})

CONVENTION = "conv + linear + matmul + attention multiply-adds, no norms, no biases, no broadcast products"
AGREEMENT = 0.01  # relative difference of two counters above which a figure is not to be trusted
NAMED = 3  # more parameters than so many are not listed in a sentence

# Operators of the traced graph that multiply and add nothing the convention counts. Whatever is neither here nor
# counted is reported by name, so an operator that is new to us is never silently zero.
_FREE_NAMES = """
abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add alias
alpha_dropout amax amin argmax avg_pool1d avg_pool2d avg_pool3d batch_norm bitwise_and bitwise_or broadcast_to
celu channel_shuffle clamp clamp_max clamp_min clone concat constant_pad_nd cos cumsum div dropout dropout2d
elu embedding exp expand_as feature_dropout feature_alpha_dropout fill floor_divide frobenius_norm
full_like gather gelu glu group_norm hardshrink hardsigmoid hardswish hardtanh im2col index_select instance_norm
layer_norm leaky_relu le lift_fresh linalg_vector_norm log log1p log_sigmoid log_softmax
logical_and logical_not logical_or logsumexp lt masked_fill max max_pool1d max_pool2d max_pool3d maximum mean
mH mT meshgrid min minimum mish mul native_layer_norm ne neg new_ones norm numel ones_like pad pixel_shuffle
pixel_unshuffle pow prelu real imag reciprocal reflection_pad1d reflection_pad2d relu relu6
repeat repeat_interleave replication_pad2d reshape_as resolve_conj rms_norm round rrelu rsqrt rsub scalar_tensor
selu sigmoid sign silu sin softmax softplus softshrink softsign sort sqrt square squeeze std sub sum swapaxes tanh
tensor_split threshold tile topk tril triu unflatten unfold upsample_bicubic2d upsample_bilinear2d
upsample_nearest1d upsample_nearest2d var var_mean view_as where zero
"""
FREE = frozenset(_FREE_NAMES.split())
# A multiplication alone is free, but a weight matrix that takes part in one is not: a sum will follow.
WITHOUT_PRODUCT = FREE - {"mul"} | {"cat", "index", "stack"}


@dataclass(frozen=True)
class ForwardCount:
    """What fvcore counted, and what nobody counts.

    Attributes:
        macs: of the whole batch.
        by_module: path of each module that counts -> its multiply-adds, those of its parts included.
        uncounted: operators that may multiply and add but are counted by nobody -> how often they occur.
        uncounted_parameters: names of weights that multiply features in something else than a counted operator.
    """

    macs: int
    by_module: dict[str, int]
    uncounted: dict[str, int]
    uncounted_parameters: tuple[str, ...] = ()

    def doubts(self, other: int, counter: str) -> tuple[str, ...]:
        """Return in words why the figure is not to be trusted; empty where nothing speaks against it.

        Args:
            other: what another counter counted.
            counter: its name.
        """
        found = []
        if self.uncounted:
            operators = ", ".join(f"{name} (x{n})" for name, n in self.uncounted.items())
            found.append(f"nobody counts {operators}, which may multiply and add; MACs is too low")
        if self.uncounted_parameters:
            more = len(self.uncounted_parameters) - NAMED
            names = ", ".join(self.uncounted_parameters[:NAMED]) + (f" and {more} more" if more > 0 else "")
            found.append(f"nobody counts the products with {names}; MACs is too low")
        if difference(self.macs, other) > AGREEMENT:
            found.append(f"fvcore counts {self.macs:,} MACs, {counter} {other:,}; do not trust either")
        return tuple(found)


def difference(one: int, other: int) -> float:
    """Return how far two counts are apart, relative to the larger."""
    return abs(one - other) / max(one, other, 1)


def count_with_fvcore(network: nn.Module, image: Tensor, more: Mapping[str, Handle] = NO_MORE) -> ForwardCount:
    """Trace one forward pass of ``[B, C, H, W]`` images and count it.

    Args:
        network: in eval mode; tracing in training mode would move its statistics.
        image: ``[B, C, H, W]``.
        more: rules for operators beyond our convention, such as `THOP_STYLE`.
    """
    with warnings.catch_warnings():
        # fvcore 0.1.5 calls torch.jit.script when imported; the tracer doubts every Python branch on a shape
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(network, image)
        analysis.clear_op_handles().set_op_handle(**_handles(), **more)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("no_tracer_warning")
        with attention_as_products():
            by_module = {name: int(macs) for name, macs in analysis.by_module().items()}
        operators: Counter[str] = analysis.unsupported_ops()
    uncounted = {name: n for name, n in sorted(operators.items()) if _plain_name(name) not in FREE}
    return ForwardCount(
        macs=by_module.pop("", 0),
        by_module={name: macs for name, macs in by_module.items() if macs},
        uncounted=uncounted,
        uncounted_parameters=uncounted_parameters(network, image, WITHOUT_PRODUCT),
    )


def count_with_torch(network: nn.Module, image: Tensor) -> int:
    """Run one forward pass under torch's counter, which counts a multiply-add as two operations."""
    with attention_as_products(), FlopCounterMode(display=False) as counter:
        network(image)
    operations: int = counter.get_total_flops()
    return operations // 2


def _plain_name(operator: str) -> str:
    """``aten::relu_`` -> ``relu``."""
    return operator.removeprefix("aten::").rstrip("_") if operator.startswith("aten::") else operator


def _handles() -> dict[str, Handle]:
    from fvcore.nn.jit_handles import conv_flop_jit, einsum_flop_jit

    handles: dict[str, Handle] = {
        "aten::_convolution": conv_flop_jit,
        "aten::einsum": einsum_flop_jit,
        "aten::scaled_dot_product_attention": _attention,
    }
    handles |= {f"aten::{name}": _product_of(0) for name in ("linear", "matmul", "mm", "bmm", "mv", "dot")}
    handles |= {f"aten::{name}": _product_of(1) for name in ("addmm", "baddbmm", "addmv")}
    return handles


def _product_of(first: int) -> Handle:
    """Each element of the output is a sum over the last dimension of the first factor, also after broadcasting."""

    def count(inputs: Any, outputs: Any) -> int:  # noqa: ANN401 (nodes of torch's graph)
        return math.prod(_shape(outputs[0])) * _shape(inputs[first])[-1]

    return count


def _attention(inputs: Any, outputs: Any) -> int:  # noqa: ANN401 (nodes of torch's graph)
    """Query [..., L, E] times keys [..., S, E], then weights [..., L, S] times values [..., S, V]; masked or not."""
    query, key, value = (_shape(node) for node in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _batch_norm_in_thop(inputs: Any, outputs: Any) -> int:  # noqa: ANN401 (nodes of torch's graph)
    return 4 * math.prod(_shape(inputs[0]))


def _adaptive_pool_in_thop(inputs: Any, outputs: Any) -> int:  # noqa: ANN401 (nodes of torch's graph)
    """Each output is a sum over its window, whose size is rounded down, and a division."""
    before, after = _shape(inputs[0]), _shape(outputs[0])
    window = math.prod(b // a for b, a in zip(before[-2:], after[-2:], strict=True))
    return math.prod(after) * (window + 1)


def _shape(node: Any) -> list[int]:  # noqa: ANN401
    sizes: list[int] = node.type().sizes()
    return sizes


# What the thop package counts beyond our convention in the networks of the literature it was used for.
THOP_STYLE: Mapping[str, Handle] = {
    "aten::batch_norm": _batch_norm_in_thop,
    "aten::adaptive_avg_pool2d": _adaptive_pool_in_thop,
}
