"""A look at every operator that torch runs, below autograd and above the device."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Let a subclass see each operator that runs while it is active, whether or not gradients are wanted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @abstractmethod
    def saw(self, operator: Any, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:  # noqa: ANN401
        """Take note of an operator that has just run.

        Args:
            operator: one of ``torch.ops``, with its overload.
            inputs: its positional arguments.
            named: its keyword arguments.
            output: what it returned.
        """

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (an operator)
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 (whatever the operator returns)
        """Run the operator and show it."""
        with torch._C.DisableTorchFunctionSubclass():  # they had their say above this level, as fused members do
            output = func(*args, **(kwargs or {}))
            self.saw(func, args, kwargs or {}, output)
        return output


def tensors_in(*values: object) -> list[Tensor]:
    """Return the tensors in arguments or results, however deep."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
