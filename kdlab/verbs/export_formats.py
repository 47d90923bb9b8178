"""The files that a student can be exported to. Each knows how to write itself, and how a reader would run it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from kdlab.extras import require
from kdlab.profiling.isolation import bare_copy
from kdlab.weights import load_weights, save_weights

Run = Callable[[Tensor], Tensor]  # [B, C, H, W] -> [B, K]
Description = Mapping[str, Any]  # of network, run and preprocessing; JSON values

INPUT, OUTPUT = "image", "logits"


class ExportFormat(Protocol):
    """A kind of file.

    Attributes:
        suffix: of the file's name.
        engine: what runs it; None where that is PyTorch with the network's own code.
        packages: beside PyTorch that write or run it; their versions are recorded.
    """

    suffix: ClassVar[str]
    engine: ClassVar[str | None]
    packages: ClassVar[tuple[str, ...]]

    def check_installed(self) -> None:
        """See that the packages are there.

        Raises:
            UsageError: if one is missing.
        """

    def write(self, network: nn.Module, image: Tensor, description: Description, path: Path) -> None:
        """Write `network`, in eval mode, for any number of images like `image` ``[2, C, H, W]``."""

    def read(self, path: Path, network: nn.Module) -> Run:
        """Return what runs the file, on as many threads as torch; nothing of `network` but its architecture counts."""

    def opset(self, path: Path) -> int | None:
        """Return the version of ONNX's operators that the file needs; None where it is no ONNX file."""


class Safetensors:
    """Weights alone: the reader brings the network's class."""

    suffix: ClassVar[str] = ".safetensors"
    engine: ClassVar[str | None] = None
    packages: ClassVar[tuple[str, ...]] = ("safetensors",)

    def check_installed(self) -> None:
        """Nothing more is needed."""

    def write(self, network: nn.Module, image: Tensor, description: Description, path: Path) -> None:
        """See `ExportFormat.write`."""
        save_weights(network, path, dict(description))

    def read(self, path: Path, network: nn.Module) -> Run:
        """Return a copy of the network with the weights of the file and of nothing else."""
        copied = bare_copy(network)
        with torch.no_grad():
            for tensor in copied.state_dict().values():
                tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
        load_weights(copied, path)
        return copied

    def opset(self, path: Path) -> int | None:
        """See `ExportFormat.opset`."""
        return None


class TorchExport:
    """torch.export's archive: graph and weights, run by PyTorch without the network's code."""

    suffix: ClassVar[str] = ".pt2"
    engine: ClassVar[str | None] = "torch.export"
    packages: ClassVar[tuple[str, ...]] = ()

    def check_installed(self) -> None:
        """Nothing more is needed."""

    def write(self, network: nn.Module, image: Tensor, description: Description, path: Path) -> None:
        """See `ExportFormat.write`."""
        with _quietly(), torch.no_grad():
            program = torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            archive = io.BytesIO()
            torch.export.save(program, archive, extra_files={"kdlab.json": json.dumps(description)})
        path.write_bytes(archive.getvalue())

    def read(self, path: Path, network: nn.Module) -> Run:
        """Return the graph in the archive."""
        with _quietly():
            module: Run = torch.export.load(path).module()
        return module

    def opset(self, path: Path) -> int | None:
        """See `ExportFormat.opset`."""
        return None


class ONNX:
    """One ONNX file, weights inside, for onnxruntime and other engines."""

    suffix: ClassVar[str] = ".onnx"
    engine: ClassVar[str | None] = "onnxruntime"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")

    def check_installed(self) -> None:
        """See that the packages of the extra are there.

        Raises:
            UsageError: if one is missing.
        """
        for package in self.packages:
            require(package, "export", "export to ONNX")

    def write(self, network: nn.Module, image: Tensor, description: Description, path: Path) -> None:
        """See `ExportFormat.write`."""
        with _quietly(), torch.no_grad():
            program: Any = torch.onnx.export(
                network, (image,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT], output_names=[OUTPUT], verbose=False,
            )  # fmt: skip
        program.model.metadata_props["kdlab"] = json.dumps(description)
        program.save(path, external_data=False)

    def read(self, path: Path, network: nn.Module) -> Run:
        """Return a session of onnxruntime on the processor."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def run(image: Tensor) -> Tensor:
            return torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])

        return run

    def opset(self, path: Path) -> int | None:
        """See `ExportFormat.opset`."""
        import onnx

        imports = onnx.load(path, load_external_data=False).opset_import
        return next(int(entry.version) for entry in imports if entry.domain in ("", "ai.onnx"))


FORMATS: Mapping[str, ExportFormat] = {"safetensors": Safetensors(), "torch_export": TorchExport(), "onnx": ONNX()}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what the exporters say of their own insides from the user's screen; errors still come as exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
