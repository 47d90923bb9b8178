"""Randomness without state: every random number is a pure function of counters.

``bits = hash(stream, seed, epoch, index)``, so a resumed run, another process or another device draws exactly the
numbers that the uninterrupted run would have drawn, and no generator state has to be saved. The hash is SplitMix64:
the key made of (stream, seed, epoch) is its state and ``index`` counts its steps. It is written in ``int64`` tensor
arithmetic, which wraps around like unsigned arithmetic, so it runs where the tensor lives without waiting for the
device. The tests compare it with the published generator.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


class Stream(IntEnum):
    """What the bits are for, so that two uses with equal counters never share bits. Never renumber these."""

    ORDER = 0
    VIEW = 1
    MIXING = 2
    HOLD_OUT = 3
    FEW_LABELS = 4
    NOISY_IMAGES = 5
    NOISY_LABELS = 6


def counter_bits(seed: int, epoch: int, index: Tensor, stream: int) -> Tensor:
    """Return 64 random bits for each index.

    Args:
        seed: Any integer.
        epoch: Any integer.
        index: ``int64`` of any shape, on any device.
        stream: A `Stream`, or any integer that names the use.

    Returns:
        ``int64`` of the shape of ``index``: all 64 bits are random, so half of the values are negative.
    """
    key = 0
    for counter in (stream, seed, epoch):
        key = _mix_int((key ^ counter) + _GOLDEN)
    return _mix(index * _signed(_GOLDEN) + _signed(key))


def uniform(bits: Tensor) -> Tensor:
    """Turn 64 random bits into ``float32`` numbers in [0, 1), in steps of 2**-24."""
    return _shift_right(bits, 40).float() * 2.0**-24


def below(bits: Tensor, n: int) -> Tensor:
    """Turn 64 random bits into integers 0 ... n - 1; no value is off its fair share by more than a factor n / 2**32.

    Args:
        bits: ``int64``, from `counter_bits`.
        n: How many different values, 1 ... 2**31.
    """
    return (_shift_right(bits, 32) * n) >> 32


def nonnegative(bits: Tensor) -> Tensor:
    """Keep 63 of the 64 bits, so that the value can name one of endlessly many views."""
    return _shift_right(bits, 1)


def permutation(
    n: int, seed: int, epoch: int, stream: int = Stream.ORDER, device: torch.device | None = None
) -> Tensor:
    """Return a random order of 0 ... n - 1, the same on every platform, device and version.

    Numpy's and torch's generators may change between versions; the order of hashes may not.

    Returns:
        ``[n]`` ``int64``.
    """
    bits = counter_bits(seed, epoch, torch.arange(n, device=device), stream)
    return torch.argsort(bits, stable=True)


def _signed(value: int) -> int:
    """Return the ``int64`` that has the same 64 bits."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix_int(z: int) -> int:
    z &= _MASK
    z = ((z ^ (z >> 30)) * _MULTIPLIER_1) & _MASK
    z = ((z ^ (z >> 27)) * _MULTIPLIER_2) & _MASK
    return z ^ (z >> 31)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _signed(_MULTIPLIER_1)
    z = (z ^ _shift_right(z, 27)) * _signed(_MULTIPLIER_2)
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, n: int) -> Tensor:
    """Shift zeros in from the left; ``>>`` alone copies the sign bit."""
    return (z >> n) & ((1 << (64 - n)) - 1)
