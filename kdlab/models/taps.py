"""Features of inner layers, named by their module path, from any network and without editing it.

Shapes: B images, C channels, H x W pixels, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdlab.close_names import did_you_mean
from kdlab.errors import UsageError
from kdlab.types import Outputs


def layer_names(network: nn.Module) -> list[str]:
    """Return the paths of all modules inside `network`, in the order in which they were registered."""
    return [path for path, _ in network.named_modules() if path]


class Taps:
    """A network that also returns the outputs of some of its layers.

    Only for the length of a call, every tapped layer passes its output on through us. In between the network is as it
    was: its copies, its checkpoints and the exported student know nothing of taps. We take the place of the layer's
    ``forward``, not of a forward hook, because `torch.compile` notices that change and compiles the network with taps
    and without as two, while it takes no notice of hooks that come and go.

    A plain object, not a module, so that parameters are not listed twice.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> taps = Taps(network, ["2"])
        >>> outputs = taps(torch.zeros(5, 1, 2, 2))
        >>> outputs.logits.shape, outputs.features["2"].shape
        (torch.Size([5, 2]), torch.Size([5, 3]))

    Args:
        network: image ``[B, C, H, W]`` -> logits ``[B, K]``.
        layers: module paths such as ``layer2`` or ``features.4``; with none this is the network alone.

    Raises:
        UsageError: if a layer is not there.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        self.network = network
        modules = dict(network.named_modules(remove_duplicate=False))
        for path in layers:
            if not path or path not in modules:
                raise _unknown(path, network)
        self._layers = tuple(dict.fromkeys(layers))

    @property
    def layers(self) -> tuple[str, ...]:
        """The tapped paths."""
        return self._layers

    def __call__(self, image: Tensor) -> Outputs:
        """Return the logits and the features, ``[B, C, H, W]`` or ``[B, D]``, with their graph.

        Raises:
            UsageError: if a layer ran not exactly once, returned no tensor, or was overwritten afterwards.
        """
        if not self._layers:
            return Outputs(self.network(image))
        # looked up now: layers are replaced behind our back, such as by the conversion to SyncBatchNorm
        modules = [(path, self.network.get_submodule(path)) for path in self._layers]
        seen: list[tuple[str, Any, int | None]] = []
        before = [(module, module.__dict__.get("forward")) for _, module in modules]
        try:
            for path, module in modules:
                module.__dict__["forward"] = _passing_on(module.forward, path, seen)
            logits = self.network(image)
        finally:
            for module, forward in reversed(before):
                if forward is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.__dict__["forward"] = forward
        return Outputs(logits, self._features(seen))

    def _features(self, seen: list[tuple[str, Any, int | None]]) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for path in self._layers:
            outputs = [(output, version) for name, output, version in seen if name == path]
            if len(outputs) != 1:
                raise UsageError(
                    f"layer {path} ran {len(outputs)} times in one pass of {type(self.network).__name__}, but a "
                    "feature comes from a layer that runs once; tap the module around it or one that follows"
                )
            output, version = outputs[0]
            if not isinstance(output, Tensor):
                raise UsageError(
                    f"layer {path} returns a {type(output).__name__}, but a feature is a tensor; tap a module inside it"
                )
            if version is not None and output._version != version:
                raise UsageError(
                    f"the output of layer {path} is overwritten by a later layer that works in place; "
                    "tap that layer instead, or build the network with inplace=False"
                )
            features[path] = output
        return features


def _passing_on(forward: Callable[..., Any], path: str, seen: list[tuple[str, Any, int | None]]) -> Callable[..., Any]:
    """Return `forward` that also appends its path, output and the output's count of in-place changes to `seen`."""

    def tapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        output = forward(*args, **kwargs)
        if not isinstance(output, Tensor):
            seen.append((path, output, None))
        elif torch.compiler.is_compiling():
            # A compiled pass does not count in-place changes: keep a copy, which the compiler leaves out if it can.
            seen.append((path, output.clone(), None))
        else:
            seen.append((path, output, None if output.is_inference() else output._version))
        return output

    return tapped


def _unknown(path: str, network: nn.Module) -> UsageError:
    names = layer_names(network)
    first = (
        f"; the first of its {len(names)}: {', '.join(names[:5])}; list all with kdlab.models.taps.layer_names(network)"
    )
    return UsageError(f"{type(network).__name__} has no layer {path!r}{did_you_mean(path, names) or first}")
