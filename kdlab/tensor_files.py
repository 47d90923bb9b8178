"""Files of tensors: written whole, and read without ever running what they contain."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from kdlab.atomic import atomic_write
from kdlab.errors import IntegrityError

# how torch words that a file is whole but names something to call
_REFUSED = ("Unsupported global", "Unsupported class", "Trying to")


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically.

    Args:
        path: of the file.
        tensors: on the processor; they share no memory.
        header: metadata of the file.
    """
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(header))
    with atomic_write(path) as part:
        part.write_bytes(content)  # not by safetensors, which hides a full disk behind an error of its own


def load_pickled(
    file: Path | BinaryIO,
    name: str,
    kind: str,
    advice: str,
    map_location: Any = "cpu",  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Return the tensors and plain values that `torch.save` wrote.

    Args:
        file: what is read.
        name: of the file in messages.
        kind: what it should be.
        advice: end of the message about a file that holds more.
        map_location: of `torch.load`.

    Raises:
        IntegrityError: if the file cannot be read, is damaged, or holds something that loading would call.
    """
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except MemoryError:
        raise
    except PermissionError as error:
        raise IntegrityError(f"{name} cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged file raises anything: RuntimeError, EOFError, KeyError, UnicodeError ...
        if isinstance(error, pickle.UnpicklingError) and any(sign in str(error) for sign in _REFUSED):
            raise IntegrityError(f"{name} holds more than tensors and plain values{advice}") from error
        raise IntegrityError(f"{name} is damaged or no {kind} ({type(error).__name__})") from error
