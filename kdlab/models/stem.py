"""Fits the first layers of networks from other libraries to the images: their channels and their size.

Networks for ImageNet halve 224x224 images two times before their first block; a 32x32 image is 8x8 by then and 1x1
at the end. The remedy of the CIFAR literature is a 3x3 convolution of stride 1 without max-pool (He et al. 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdlab.errors import UsageError


def set_in_channels(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution `in_channels` inputs, each with the mean of its old kernels, scaled to keep the sum.

    A grey image then answers like three equal colour channels did, so pretrained weights stay useful.
    """
    name, old = _first_convolution(network)
    if old.in_channels == in_channels:
        return
    mean = old.weight.mean(dim=1, keepdim=True)
    weight = mean.expand(-1, in_channels, -1, -1) * (old.in_channels / in_channels)
    _replace_convolution(network, name, old, weight, old.kernel_size, old.stride, old.padding)


def adapt_to_small_images(network: nn.Module, name: str, pretrained: bool) -> None:
    """Replace the stem of `network`, known to its library as `name`, by a 3x3 convolution of stride 1, no max-pool.

    Of a larger pretrained kernel the middle 3x3 is kept; without pretrained weights it is drawn anew (He et al. 2015).

    Raises:
        UsageError: where the first convolution or the max-pools are not those of such a stem.
    """
    position, old = _first_convolution(network)
    size = old.kernel_size[0]
    pools = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.MaxPool2d)]
    if old.stride == (1, 1):
        raise _refusal(name, "its first convolution already has stride 1")
    if type(old) is not nn.Conv2d or old.stride != (2, 2) or old.kernel_size not in ((3, 3), (5, 5), (7, 7)):
        shape = f"{type(old).__name__} {size}x{size} with stride {old.stride[0]}"
        raise _refusal(name, f"its first convolution is a {shape}, not a plain one of 3x3 to 7x7 with stride 2")
    if old.padding != (size // 2, size // 2) or old.groups != 1:
        raise _refusal(name, f"its first convolution has padding {old.padding} and {old.groups} groups")
    if _same_inputs(network, old) > 1:
        raise _refusal(name, "several convolutions side by side read the image")
    if len(pools) > 1 or any(module.stride not in (2, (2, 2)) for _, module in pools):
        raise _refusal(name, f"it has max-pools beyond its stem ({len(pools)} in all) or one of another stride than 2")
    middle = slice(size // 2 - 1, size // 2 + 2)
    weight = old.weight[:, :, middle, middle]
    if not pretrained and size != 3:
        weight = nn.init.kaiming_normal_(torch.empty_like(weight), mode="fan_out", nonlinearity="relu")
    _replace_convolution(network, position, old, weight, (3, 3), (1, 1), (1, 1))
    for path, _ in pools:
        network.set_submodule(path, nn.Identity())


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise UsageError(
        f"{type(network).__name__} has no convolution whose channels or stride could be changed; "
        "use images with 3 channels and leave small_images false"
    )


def _same_inputs(network: nn.Module, stem: nn.Conv2d) -> int:
    """Count the strided convolutions that could read the image together with `stem`, itself included (RepVGG)."""
    shape = (stem.in_channels, stem.out_channels, stem.stride)
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return sum((other.in_channels, other.out_channels, other.stride) == shape for other in convolutions)


def _replace_convolution(
    network: nn.Module,
    name: str,
    old: nn.Conv2d,
    weight: Tensor,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
) -> None:
    """Put a convolution of the same class with the given weight and geometry in the place of `old`."""
    new = type(old)(
        weight.shape[1],
        old.out_channels,
        kernel_size,  # type: ignore[arg-type]
        stride,  # type: ignore[arg-type]
        padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(weight)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    network.set_submodule(name, new)


def _refusal(name: str, reason: str) -> UsageError:
    return UsageError(
        f"small_images is true but {name} cannot be adapted to small images cleanly: {reason}; set small_images: false "
        "and pass the library's own options (a vision transformer takes image and patch size), or enlarge the images"
    )
