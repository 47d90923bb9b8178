"""Networks of timm and torchvision by their library name, as images ``[B, C, H, W]`` -> logits ``[B, K]``.

The two libraries are imported when a model is built, not before: their import takes seconds. The wrapped network is
the attribute ``network``, so a layer to tap is named ``network.layer1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdlab.close_names import did_you_mean
from kdlab.errors import UsageError, first_line
from kdlab.models.download import huggingface_offline_if_unreachable, require_reachable_or_cached
from kdlab.models.stem import adapt_to_small_images, set_in_channels


class _ExternalModel(nn.Module):
    """A network of another library, checked for what it cannot say itself."""

    def __init__(self, network: nn.Module, name: str, image_size: tuple[int, int] | None) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.image_size = image_size

    def forward(self, image: Tensor) -> Tensor:
        """Image ``[B, C, H, W]`` -> logits ``[B, K]``."""
        if self.image_size is not None and tuple(image.shape[2:]) != self.image_size:
            raise UsageError(
                f"{self.name} takes images of {list(self.image_size)} pixels but got {list(image.shape[2:])}; set "
                "the size in options (torchvision: image_size; timm: img_size, and patch_size where images are small)"
            )
        logits: Tensor = self.network(image)
        return logits


class TimmModel(_ExternalModel):
    """Any network of timm, the PyTorch Image Models library (Wightman 2019), by its name there.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Parameters: as many as the architecture has, for example 11,227,812
    for ``resnet18`` with 100 classes.

    Args:
        name: timm's name of the architecture, with or without the tag of its weights: ``resnet18.a1_in1k``.
        num_classes: number of logits; a pretrained classifier of another size is replaced.
        in_channels: channels of the image; timm folds the pretrained first convolution accordingly.
        pretrained: start from timm's published weights, downloaded on first use.
        small_images: adapt the stem to images of about 32x32 pixels: first convolution 3x3 with stride 1, no max-pool.
        options: further keyword arguments of this architecture, for example ``{drop_path_rate: 0.1}``.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 100,
        in_channels: int = 3,
        pretrained: bool = False,
        small_images: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        import timm

        if not timm.is_model(name):
            raise _unknown(name, "timm", timm.list_models())
        network = _create_timm(name, pretrained, {"num_classes": num_classes, "in_chans": in_channels}, options)
        if small_images:
            adapt_to_small_images(network, name, pretrained)
        embedding = getattr(network, "patch_embed", None)
        fixed = getattr(embedding, "img_size", None) if getattr(embedding, "strict_img_size", False) else None
        super().__init__(network, name, fixed)


def _create_timm(name: str, pretrained: bool, sizes: dict[str, int], options: dict[str, Any] | None) -> nn.Module:
    import timm

    network: nn.Module
    if not pretrained:
        with _options_checked(name, options):
            network = timm.create_model(name, **sizes, **(options or {}))
        return network
    try:
        with _options_checked(name, options), huggingface_offline_if_unreachable():
            network = timm.create_model(name, pretrained=True, **sizes, **(options or {}))
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"the pretrained weights of {name} could not be had ({first_line(error)}); set pretrained: false, or "
            "fetch them once where there is a network (they stay in the Hugging Face cache, see HF_HOME)"
        ) from error
    return network


class TorchvisionModel(_ExternalModel):
    """Any image classifier of torchvision (2016) by its name there, for example ``mobilenet_v3_small``.

    Image ``[B, C, H, W]`` -> logits ``[B, K]``. Parameters: as many as the architecture has, for example 1,620,356
    for ``mobilenet_v3_small`` with 100 classes, the student of seed study 002 (there with ``small_images: false``:
    it saw 32x32 images as a single pixel, which is why it stayed at 31.5%).

    Args:
        name: torchvision's name of the architecture.
        num_classes: number of logits; a pretrained classifier of another size is replaced.
        in_channels: channels of the image; the first convolution is replaced where it has others.
        weights: name of torchvision's published weights, such as ``DEFAULT`` or ``IMAGENET1K_V1``, downloaded on
            first use; none by default.
        small_images: adapt the stem to images of about 32x32 pixels: first convolution 3x3 with stride 1, no max-pool.
        options: further keyword arguments of this architecture, for example ``{dropout: 0.1}``.
    """

    def __init__(
        self,
        name: str,
        num_classes: int = 100,
        in_channels: int = 3,
        weights: str | None = None,
        small_images: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        import torchvision.models as zoo

        names = zoo.list_models(module=zoo)
        if name not in names:
            raise _unknown(name, "torchvision", names)
        if weights is None:
            with _options_checked(name, options):
                network: nn.Module = zoo.get_model(name, num_classes=num_classes, **(options or {}))
        else:
            network = _pretrained_torchvision(name, weights, num_classes, options)
        if getattr(network, "aux_logits", False):
            raise UsageError(f"{name} returns auxiliary logits while training; set options: {{aux_logits: false}}")
        set_in_channels(network, in_channels)
        if small_images:
            adapt_to_small_images(network, name, pretrained=weights is not None)
        size: int | None = getattr(network, "image_size", None)
        super().__init__(network, name, None if size is None else (size, size))


def _pretrained_torchvision(name: str, weights: str, num_classes: int, options: dict[str, Any] | None) -> nn.Module:
    import torchvision.models as zoo

    published = zoo.get_model_weights(name)
    if weights not in published.__members__:
        offered = ", ".join(published.__members__)
        raise UsageError(f"{name} has no weights called {weights}; set weights to one of torchvision's: {offered}")
    chosen = published[weights]
    require_reachable_or_cached(chosen.url, f"the weights {weights} of {name}", "weights: null")
    with _options_checked(name, options):
        network: nn.Module = zoo.get_model(name, num_classes=len(chosen.meta["categories"]), **(options or {}))
    state = torch.hub.load_state_dict_from_url(chosen.url, map_location="cpu", check_hash=True, weights_only=True)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(
            f"the weights {weights} do not fit {name} with options {options or {}} ({first_line(error)}); "
            "choose options with the shapes of the published network or set weights: null"
        ) from error
    _set_num_classes(network, num_classes, len(chosen.meta["categories"]))
    return network


def _set_num_classes(network: nn.Module, num_classes: int, published: int) -> None:
    """Replace the last layer, which has `published` outputs, where another number of classes is wanted."""
    if num_classes == published:
        return
    heads = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    path, last = heads[-1]
    if isinstance(last, nn.Linear):
        network.set_submodule(path, nn.Linear(last.in_features, num_classes, bias=last.bias is not None))
    else:  # SqueezeNet: a 1x1 convolution, then the mean
        network.set_submodule(path, nn.Conv2d(last.in_channels, num_classes, 1))


@contextmanager
def _options_checked(name: str, options: dict[str, Any] | None) -> Iterator[None]:
    """Turn the TypeError of an unknown keyword argument into one line for the user."""
    try:
        yield
    except TypeError as error:
        if not options:
            raise
        raise UsageError(
            f"{name} does not take the options {options}: {first_line(error)}; "
            "see its constructor in the library's documentation"
        ) from error


def _unknown(name: str, library: str, names: list[str]) -> UsageError:
    hint = did_you_mean(name, names) or f"; see the list of models in {library}'s documentation"
    return UsageError(f"{library} has no classifier called {name!r}{hint}")
