"""Which device a verb runs on."""

from typing import Literal

import torch

from kdlab.errors import UsageError


def find_device(accelerator: Literal["auto", "cpu", "gpu"]) -> torch.device:
    """Return the first GPU or the processor; ``auto`` takes a GPU where there is one.

    Raises:
        UsageError: if a GPU is asked for and there is none.
    """
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UsageError("accelerator is gpu, but torch finds no CUDA device here; set --accelerator cpu or auto")
    return torch.device("cuda", 0) if accelerator != "cpu" and torch.cuda.is_available() else torch.device("cpu")
