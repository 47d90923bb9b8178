"""Products that no counter of operators sees: a broadcast multiplication, and a sum over it somewhere later.

``(x[:, None] * w).sum(-1)`` is a matrix product, but torch runs a multiplication and a sum, and each of them alone is
as common as a batch norm. What tells it apart is the weight: one of two dimensions that meets the image's features in
something else than a counted product.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from kdlab.profiling.operators import OperatorWatch, tensors_in
from kdlab.profiling.own_count import COUNTED, attention_as_products

Names = frozenset[str]


def uncounted_parameters(network: nn.Module, image: Tensor, free: frozenset[str]) -> tuple[str, ...]:
    """Return the parameters that multiply the features of ``[B, C, H, W]`` images without being counted.

    Only those count that have two dimensions or more above 1: others scale or shift, as those of a norm. Features that
    multiply each other by broadcasting, as in attention written by hand, are not found.

    Args:
        network: in eval mode.
        image: ``[B, C, H, W]``.
        free: names of operators that multiply nothing.
    """
    with torch.no_grad():
        network(image)  # what a network does once only, at its first image, is not looked at
        watch = _Meetings(network, image, free)
        with attention_as_products(), watch:
            network(image)
    return tuple(name for name, _ in network.named_parameters() if name in watch.met)


class _Meetings(OperatorWatch):  # type: ignore[no-untyped-call]
    """Find which parameters meet what is made of the image, and in which operators.

    What is made of parameters alone, as a normalised weight, goes on being those parameters. Tensors that share memory
    are one.
    """

    def __init__(self, network: nn.Module, image: Tensor, free: frozenset[str]) -> None:
        super().__init__()
        self.met: set[str] = set()
        self._free = free
        self._made_of: MutableMapping[torch.UntypedStorage, Names] = WeakIdKeyDictionary()
        self._seen: MutableMapping[torch.UntypedStorage, bool] = WeakIdKeyDictionary()  # made of the image
        self._seen[image.untyped_storage()] = True
        for name, parameter in network.named_parameters():
            if sum(size > 1 for size in parameter.shape) >= 2:
                self._made_of[parameter.untyped_storage()] = frozenset([name])

    def saw(self, operator: Any, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:  # noqa: ANN401
        """Follow image and parameters through an operator."""
        given = [tensor.untyped_storage() for tensor in tensors_in(inputs, named)]
        names = frozenset[str]().union(*(self._made_of.get(storage, frozenset()) for storage in given))
        sees = any(storage in self._seen for storage in given)
        packet = operator.overloadpacket
        if sees and packet not in COUNTED and not (operator.namespace == "aten" and _name(packet) in self._free):
            self.met |= names
        for storage in (tensor.untyped_storage() for tensor in tensors_in(output)):
            if sees:
                self._seen[storage] = True
            elif names:
                self._made_of[storage] = names


def _name(packet: Any) -> str:  # noqa: ANN401 (an operator)
    """``aten::relu_`` -> ``relu``."""
    name: str = packet.__name__
    return name.rstrip("_")
