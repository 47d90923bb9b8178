"""Data sets, and everything between the disk and the network: splits, loading, augmentation, normalisation, mixing."""

from kdlab.data.augment import Augmentation, RandomCropFlip
from kdlab.data.base import ImageData
from kdlab.data.cifar import CIFAR10, CIFAR100
from kdlab.data.digits import Digits
from kdlab.data.image_folder import ImageFolder
from kdlab.data.loader import BatchLoader
from kdlab.data.mixing import CutMix, Mixing, Mixup
from kdlab.data.mnist import MNIST, FashionMNIST
from kdlab.data.normalise import Normalize
from kdlab.data.split import Split
from kdlab.data.stored import StoredImageData

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "Augmentation",
    "BatchLoader",
    "CutMix",
    "Digits",
    "FashionMNIST",
    "ImageData",
    "ImageFolder",
    "Mixing",
    "Mixup",
    "Normalize",
    "RandomCropFlip",
    "Split",
    "StoredImageData",
]
