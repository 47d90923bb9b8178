"""What makes a training step faster and changes no more than the rounding of its numbers."""

import shutil
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from kdlab.errors import UsageError
from kdlab.methods import Method
from kdlab.teachers import Teacher
from kdlab.types import Batch


class ChannelsLast(Callback):
    """Keep images and convolutions in the order (B, H, W, C) in memory while training, which most kernels like better.

    Shapes, names and saved weights stay as they are; numbers differ by rounding.
    """

    def __init__(self) -> None:
        self._turned: list[nn.Module] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Turn the weights before the optimizer and DDP see them; images follow at the first convolution."""
        if stage == "fit":
            convolutions = [module for module in pl_module.modules() if isinstance(module, nn.Conv2d)]
            self._turned = [conv for conv in convolutions if conv.weight.is_contiguous()]
            for conv in self._turned:
                conv.to(memory_format=torch.channels_last)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Turn them back: what the student costs is measured as it will be loaded from its file."""
        if stage == "fit":
            for conv in self._turned:
                conv.to(memory_format=torch.contiguous_format)


class CompiledNetworks(Callback):
    """Compile the forward and backward passes of the student and of its teachers, for whole training batches.

    Names of parameters, checkpoints and the saved student are those of the plain network; numbers differ by rounding.
    The first step takes up to minutes. The last, smaller batch of an epoch, validation and test run uncompiled: each
    would be compiled anew.

    Args:
        mode: of `torch.compile`, such as ``max-autotune``; ``reduce-overhead`` makes CUDA graphs of the networks.
        backend: of `torch.compile`.

    Raises:
        UsageError: at the start of training, when the machine lacks the compiler that PyTorch calls.
    """

    def __init__(self, mode: str | None = None, backend: str = "inductor") -> None:
        self.mode = mode
        self.backend = backend
        self._networks: list[nn.Module] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the networks; they are compiled when they are called."""
        if self.backend == "inductor" and not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
            raise UsageError(
                "CompiledNetworks needs a C++ compiler, and there is no g++ or clang++ on the PATH; install one, or "
                "take CompiledNetworks out of trainer.callbacks"
            )
        self._networks = [module for module in networks_of(pl_module) if module._compiled_call_impl is None]
        for network in self._networks:
            network.compile(dynamic=False, mode=self.mode, backend=self.backend)
        torch.compiler.set_stance("eager_on_recompile")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Let a whole batch be compiled, a smaller one not."""
        loader: Any = trainer.train_dataloader
        whole = len(batch.label) == loader.batch_size * loader.streams
        torch.compiler.set_stance("default" if whole else "eager_on_recompile")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        """Compile nothing between the steps."""
        torch.compiler.set_stance("eager_on_recompile")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Bring the plain networks back."""
        self._undo()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Bring the plain networks back."""
        self._undo()

    def _undo(self) -> None:
        torch.compiler.set_stance("default")
        for network in self._networks:
            network._compiled_call_impl = None


def networks_of(method: LightningModule) -> list[nn.Module]:
    """Return the networks that a step calls: those that are trained, and the teachers'."""
    teachers = [part for part in method.modules() if isinstance(part, Teacher)]
    frozen = [teacher.network for teacher in teachers if teacher.network is not None]
    return [*method.networks, *frozen] if isinstance(method, Method) else frozen
