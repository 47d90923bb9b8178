"""Networks: image ``[B, C, H, W]`` -> logits ``[B, K]``. They know nothing of distillation.

Every network is a class with ``num_classes`` and ``in_channels``. To use one of your own, write an ``nn.Module`` of
that kind anywhere and name it by its import path in the config; nothing has to be registered.
"""

from kdlab.models.digits import DigitsConv
from kdlab.models.external import TimmModel, TorchvisionModel
from kdlab.models.mnist import MNISTNarrowConv, MNISTPerceptron, MNISTPooledConv, MNISTWideConv
from kdlab.models.mobilenet_v2 import MobileNetV2, MobileNetV2HighRes
from kdlab.models.normalized import Normalized
from kdlab.models.resnet import (
    CifarResNet,
    ResNet8x4,
    ResNet20,
    ResNet32,
    ResNet32x4,
    ResNet44,
    ResNet50,
    ResNet56,
    ResNet110,
)
from kdlab.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from kdlab.models.vgg import VGG8, VGG11, VGG13, VGG16, VGG19, VGG11MLPHead
from kdlab.models.wide_resnet import WRN

__all__ = [
    "VGG8",
    "VGG11",
    "VGG13",
    "VGG16",
    "VGG19",
    "WRN",
    "CifarResNet",
    "DigitsConv",
    "MNISTNarrowConv",
    "MNISTPerceptron",
    "MNISTPooledConv",
    "MNISTWideConv",
    "MobileNetV2",
    "MobileNetV2HighRes",
    "Normalized",
    "ResNet8x4",
    "ResNet20",
    "ResNet32",
    "ResNet32x4",
    "ResNet44",
    "ResNet50",
    "ResNet56",
    "ResNet110",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "TimmModel",
    "TorchvisionModel",
    "VGG11MLPHead",
]
