"""Random inputs for losses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """`draw(5, 3, seed=1)`: normal numbers, the same for the same seed, float64 unless told otherwise."""

    def normal(*shape: int, seed: int = 0, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)

    return normal
