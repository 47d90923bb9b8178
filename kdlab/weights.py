"""Reading and writing the weights of a network, without ever running what a file contains.

Files that kdlab writes are safetensors with a JSON card in their metadata. Files that it reads may also be
PyTorch files of other projects: plain state dicts, Lightning checkpoints, dicts with the state dict under
some key, with the prefixes that DataParallel, `torch.compile` or an enclosing module add.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdlab.errors import IntegrityError, first_line
from kdlab.tensor_files import load_pickled, write_tensors

Card = dict[str, Any]  # what a weights file says of itself: JSON values only


def save_weights(network: nn.Module, path: Path | str, card: Card) -> None:
    """Write the parameters and buffers of `network` to a safetensors file, atomically, with a card."""
    # copies: safetensors refuses tensors that share memory, as tied weights do
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    card = {**card, "sha256": _digest(tensors)}
    write_tensors(path, tensors, {"kdlab": json.dumps(card, sort_keys=True)})


def load_weights(network: nn.Module, path: Path | str) -> Card:
    """Load the file at `path` into `network` and return its card (empty for files of other projects).

    Raises:
        IntegrityError: if the file is missing, damaged, or holds other tensors than the network needs.
    """
    tensors, card = _read(Path(path))
    if card.pop("sha256", None) not in (None, _digest(tensors)):
        raise IntegrityError(
            f"checkpoint {path} is damaged: its tensors are not the ones that were written; make it anew"
        )
    wanted = network.state_dict()
    found = _without_prefix(tensors, wanted)
    _check_fit(found, wanted, type(network).__name__, path)
    network.load_state_dict(found, strict=False)  # checked above; old files lack BatchNorm's step counters
    return card


def digest(network: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of all parameters and buffers of `network`."""
    return _digest(network.state_dict())


def _digest(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        sha.update(flat.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def read_card(path: Path | str) -> Card:
    """The card of a safetensors file of kdlab, without reading its tensors; empty for other files."""
    if not str(path).endswith(".safetensors"):
        return {}
    _, card = _read_safetensors(Path(path), tensors=False)
    card.pop("sha256", None)
    return card


def _read(path: Path) -> tuple[dict[str, Tensor], Card]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
        raise IntegrityError(f"checkpoint {path} {what}; name a .safetensors, .ckpt, .pt or .pth file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    advice = (
        " and was not opened, because loading it could run code; save its state dict alone: "
        "torch.save(network.state_dict(), file)"
    )
    return _state_dict_in(load_pickled(path, f"checkpoint {path}", "PyTorch file", advice), path), {}


def _read_safetensors(path: Path, tensors: bool = True) -> tuple[dict[str, Tensor], Card]:
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("kdlab", "{}"))
            return ({name: file.get_tensor(name) for name in file.keys()} if tensors else {}), card  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise IntegrityError(f"checkpoint {path} is damaged or no safetensors file ({first_line(error)})") from error


def _state_dict_in(content: object, path: Path) -> dict[str, Tensor]:
    """The first mapping of names to tensors: one level down, as most projects save it, or else the content itself.

    The top level comes last, because there may be a tensor or two beside the state dict: the best accuracy, for one.
    """
    if isinstance(content, Mapping):
        for candidate in (*(content.get(key) for key in ("state_dict", "model", "net")), *content.values(), content):
            if isinstance(candidate, Mapping):
                tensors = {str(name): value for name, value in candidate.items() if isinstance(value, Tensor)}
                if tensors:
                    return tensors
    raise IntegrityError(f"checkpoint {path} holds no tensors by name; expected a state dict or a checkpoint with one")


def _without_prefix(tensors: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that the network uses, whatever prefix they were saved with.

    A kdlab checkpoint may hold a teacher and adapters beside the student, so "student." is tried first.
    """
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    first = next(iter(wanted))
    prefixes = [name.removesuffix(first) for name in tensors if name.endswith(first)]
    for prefix in ("", "student.", *sorted(prefixes, key=len)):
        stripped = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        if not _missing(stripped, wanted):
            return stripped
    return tensors


def _missing(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    return [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]


def _check_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], network: str, path: Path | str) -> None:
    missing = _missing(found, wanted)
    if missing:
        raise IntegrityError(
            f"checkpoint {path} does not fit {network}: {len(missing)} of {len(wanted)} tensors are missing, "
            f"first {missing[0]}; it was saved from another architecture"
        )
    unused = [name for name in found if name not in wanted]
    if unused:
        raise IntegrityError(
            f"checkpoint {path} does not fit {network}: {network} has no {unused[0]} "
            f"({len(unused)} such tensors); it was saved from another architecture"
        )
    for name, tensor in wanted.items():
        if name in found and found[name].shape != tensor.shape:
            raise IntegrityError(
                f"checkpoint {path} does not fit {network}: {name} has shape {tuple(found[name].shape)}, "
                f"expected {tuple(tensor.shape)}; check width, depth and num_classes"
            )
