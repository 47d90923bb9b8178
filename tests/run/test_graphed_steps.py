"""Steps that are started as one graph train the same student as steps that are taken kernel by kernel.

No GPU is needed: `Recording` stands in for CUDA. Like a CUDA graph it knows nothing but the kernels of one step and the
memory that they read and write; whatever Python would decide anew in a later step is lost.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdlab.cli import main
from kdlab.data import Digits
from kdlab.errors import KDLabError, NumericalError, UsageError
from kdlab.losses import LinearWarmup, SoftTargets
from kdlab.methods import (
    FitNet,
    HintTransfer,
    IndependentStudent,
    LogitMatching,
    Method,
    MutualLearning,
    SubStudentEnsemble,
)  # fmt: skip
from kdlab.models import DigitsConv
from kdlab.run.fast import CompiledNetworks
from kdlab.run.graphed_steps import WARM_UP, GraphedSteps
from kdlab.teachers import CachedTeacher, EMATeacher, FrozenTeacher
from kdlab.types import Batch

Fit = Callable[..., pl.Trainer]
T = TypeVar("T")
REPLAYED = 3 * 9 - WARM_UP - 2  # of three epochs of nine whole batches
plain_tensors = torch._C.DisableTorchFunctionSubclass


class Kernels(TorchDispatchMode):
    """Notes every kernel with the tensors that it reads and writes, and what these held before."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Sequence[Any], dict[str, Any], list[Any]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.nonzero.default:
            raise RuntimeError("operation not permitted when stream is capturing\n(its size is a number)")
        written = [
            given
            for argument, given in zip(func._schema.arguments, args, strict=False)
            if (argument.alias_info is not None and argument.alias_info.is_write)
            or argument.name in ("running_mean", "running_var")  # batch norm does not say that it writes them
        ]
        with plain_tensors():
            for tensor in tree_leaves(written):
                self.before.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
            result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, tree_leaves(result)))
        return result


class Recording:
    """What `CUDACapture` is on a GPU."""

    device_type = "cpu"
    made: ClassVar[list["Recording"]] = []

    def __init__(self, device: torch.device) -> None:
        self.captured = self.replayed = 0
        self.open = True
        self.made.append(self)

    def capture(self, job: Callable[[], T]) -> tuple[Callable[[], None], T]:
        kernels = Kernels()
        try:
            with torch.random.fork_rng(devices=[]), kernels:
                result = job()
        finally:  # capturing runs nothing
            with torch.no_grad(), plain_tensors():
                for tensor, value in kernels.before.values():
                    tensor.copy_(value)
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad(), plain_tensors():
                for func, args, kwargs, filled in kernels.calls:
                    for place, value in zip(filled, tree_leaves(func(*args, **kwargs)), strict=True):
                        if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                            place.copy_(value)

        return replay, result

    def close(self) -> None:
        self.open = False


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    monkeypatch.setattr(GraphedSteps, "capture_by", Recording)
    monkeypatch.setattr(Recording, "made", [])
    monkeypatch.setattr(sys.modules[torch.optim.Adam.__module__], "_get_capturable_supported_devices", lambda: ["cpu"])
    return Recording.made


def student() -> DigitsConv:
    return DigitsConv(widths=(3, 6, 6))


def teacher() -> FrozenTeacher:
    return FrozenTeacher(DigitsConv(widths=(8, 8, 8)))


def hints(kind: type[HintTransfer], **arguments: Any) -> HintTransfer:
    layers = {"student_layers": ["layer2"], "teacher_layers": ["layer2"]}
    return kind(teacher(), student=student(), **layers, **arguments)


class Forgetful(DigitsConv):
    """A network with dropout."""

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(image), 0.2, self.training)


METHODS: dict[str, Callable[[], Method]] = {
    "labels": lambda: IndependentStudent(student=student()),
    "teacher": lambda: LogitMatching(teacher(), student=student()),
    "hints": lambda: hints(HintTransfer),
    "hints in two stages": lambda: hints(FitNet, hint_epochs=1),
    "ensemble": lambda: SubStudentEnsemble([LogitMatching(teacher(), student=student()) for _ in range(2)]),
    "peers": lambda: MutualLearning([student()], student=student()),
    "average of the student": lambda: LogitMatching(EMATeacher(0.9), student=student()),
    "dropout": lambda: IndependentStudent(student=Forgetful(widths=(3, 6, 6))),
    "weight of a loss": lambda: LogitMatching(
        teacher(), student=student(), logit_loss=LinearWarmup(SoftTargets(2.0), epochs=3)
    ),
    "learning rate": lambda: IndependentStudent(
        student=student(), lr_scheduler=lambda optimizer: CosineAnnealingLR(optimizer, T_max=3)
    ),
}


class Losses(pl.Callback):
    """The mean loss of each epoch."""

    def __init__(self) -> None:
        self.means: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        means = pl_module.train_means
        self.means.append(float(means._sums[means.names.index("loss")]) / means._samples)


def trained(
    fit: Fit, make: Callable[[], Method], *callbacks: pl.Callback, **options: Any
) -> tuple[dict[str, Tensor], list[float]]:
    """What a method is after three epochs of nine whole batches and a smaller one; and the losses of the epochs."""
    torch.manual_seed(0)
    method, losses = make(), Losses()
    data = Digits(train_per_class=19, batch_size=20, val_fraction=0.1)
    fit(method, data, callbacks=[*callbacks, losses], **{"max_epochs": 3, **options})
    assert not {"training_step", "optimizer_step", "backward", "optimizer_zero_grad"} & set(vars(method))
    return dict(method.state_dict()), losses.means


@pytest.mark.parametrize("name", METHODS)
def test_the_same_student_is_trained(name: str, fit: Fit, recordings: list[Recording]) -> None:
    plain, graphed = trained(fit, METHODS[name]), trained(fit, METHODS[name], GraphedSteps())
    torch.testing.assert_close(graphed, plain, rtol=0, atol=0)
    found = recordings[0]
    assert (found.captured, found.replayed) == (3, REPLAYED)
    assert not found.open


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_optimizers_that_count_their_steps_do_so_in_the_graph(
    optimizer: type[torch.optim.Optimizer], fit: Fit, recordings: list[Recording]
) -> None:
    def make() -> Method:
        return IndependentStudent(student=student(), optimizer=lambda parameters: optimizer(parameters, lr=1e-3))

    plain, graphed = trained(fit, make), trained(fit, make, GraphedSteps())
    torch.testing.assert_close(graphed, plain, rtol=1e-4, atol=1e-6)
    assert recordings[0].replayed == REPLAYED


def test_gradients_are_clipped_in_the_graph(fit: Fit, recordings: list[Recording]) -> None:
    clip = {"gradient_clip_val": 0.01}
    plain, graphed = (trained(fit, METHODS["labels"], *each, **clip) for each in ((), (GraphedSteps(),)))
    free, _ = trained(fit, METHODS["labels"])
    torch.testing.assert_close(graphed, plain, rtol=0, atol=0)
    assert not torch.equal(free["student.fc.weight"], graphed[0]["student.fc.weight"])


def remembering(folder: Path) -> LogitMatching:
    return LogitMatching(CachedTeacher(teacher(), cache_dir=str(folder)), student=student())


def test_a_remembered_teacher_is_in_the_graph_once_it_has_said_everything(
    fit: Fit, recordings: list[Recording], tmp_path: Path
) -> None:
    def make() -> Method:
        return remembering(tmp_path)

    trained(fit, make, GraphedSteps())  # 171 images without views: all known after the first epoch
    assert (recordings[0].captured, recordings[0].replayed) == (2, 2 * 8)
    torch.manual_seed(0)
    method = make()
    fit(method, Digits(train_per_class=19, batch_size=20, val_fraction=0.1), callbacks=[GraphedSteps()], max_epochs=3)
    assert recordings[1].replayed == REPLAYED
    found = method.teacher
    assert isinstance(found, CachedTeacher)
    assert (found.images_answered, found.images_computed) == (3 * 190, 0)


def test_while_answers_are_missing_steps_are_usual_ones_and_the_log_says_so(
    fit: Fit, recordings: list[Recording], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="kdlab"):
        trained(fit, lambda: remembering(tmp_path), GraphedSteps(), max_epochs=1)
    assert recordings[0].captured == 0
    assert caplog.text.count("no CUDA graphs while answers of the teacher are missing") == 1


def test_compiled_networks_can_be_in_the_graph(fit: Fit, recordings: list[Recording]) -> None:
    torch._dynamo.reset()
    compiled = CompiledNetworks(backend="eager")
    plain, graphed = trained(fit, METHODS["teacher"]), trained(fit, METHODS["teacher"], compiled, GraphedSteps())
    torch.testing.assert_close(graphed, plain, rtol=1e-4, atol=1e-5)
    assert recordings[0].replayed == REPLAYED


def test_a_loss_that_is_no_number_is_found_in_a_graph(fit: Fit, recordings: list[Recording]) -> None:
    class Growing(SoftTargets):
        """Infinite from the third epoch on."""

        def set_epoch(self, epoch: int) -> None:
            self.factor = float("inf") if epoch == 2 else 1.0

        def forward(self, *args: Any) -> Tensor:
            return super().forward(*args) * self.factor

    with pytest.raises(NumericalError, match=r"logit_loss is inf at step 20 \(epoch 2\)"):
        trained(fit, lambda: LogitMatching(teacher(), student=student(), logit_loss=Growing(2.0)), GraphedSteps())
    assert not recordings[0].open


def test_a_step_that_waits_for_a_number_is_one_line(fit: Fit, recordings: list[Recording]) -> None:
    class Waiting(IndependentStudent):
        def losses(self, student: Any, teacher: Any, batch: Batch) -> dict[str, Tensor]:
            batch.label.nonzero()
            return super().losses(student, teacher, batch)

    method = Waiting(student=student())
    with pytest.raises(UsageError, match=r"a step of Waiting cannot be a CUDA graph \(operation not permitted when"):
        fit(method, callbacks=[GraphedSteps()])
    assert "training_step" not in vars(method)
    assert not recordings[0].open


class Watching(pl.Callback):
    """Wants to see gradients."""

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at them."""


REFUSED: dict[str, tuple[list[pl.Callback], dict[str, Any], str]] = {
    "accumulated gradients": ([], {"accumulate_grad_batches": 2}, "accumulate_grad_batches is 2; set it to 1"),
    "graphs of its own": ([CompiledNetworks(mode="reduce-overhead")], {}, "makes graphs of its own; leave it out"),
    "a schedule of accumulation": (
        [pl.callbacks.GradientAccumulationScheduler({1: 2})],
        {},
        "several batches for a step; leave it out",
    ),
    "who looks at gradients": ([Watching()], {}, "Watching.on_after_backward is not called in a graph; leave it out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_captured_is_refused_before_training(case: str, fit: Fit, recordings: list[Recording]) -> None:
    callbacks, options, message = REFUSED[case]
    with pytest.raises(KDLabError, match=message):
        fit(METHODS["labels"](), callbacks=[*callbacks, GraphedSteps()], **options)
    assert not recordings


class Warming(IndependentStudent):
    """With a learning rate that changes from step to step."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step."""
        super().optimizer_step(*args, **kwargs)


class Doubled(IndependentStudent):
    """With another loss than that of its terms."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return twice the loss."""
        return 2 * super().training_step(batch, batch_idx)


@pytest.mark.parametrize(("kind", "hook"), [(Warming, "optimizer_step"), (Doubled, "training_step")])
def test_a_method_with_hooks_of_its_own_is_refused(
    kind: type[Method], hook: str, fit: Fit, recordings: list[Recording]
) -> None:
    with pytest.raises(UsageError, match=rf"{kind.__name__}.{hook} would run in the usual steps alone"):
        fit(kind(student=student()), callbacks=[GraphedSteps()])
    assert not recordings


def test_an_optimizer_that_may_count_in_python_is_refused(fit: Fit, recordings: list[Recording]) -> None:
    class Counting(torch.optim.Adagrad):
        """Knows nothing of graphs."""

    method = IndependentStudent(student=student(), optimizer=lambda parameters: Counting(parameters))
    with pytest.raises(UsageError, match="Counting may count its steps in Python"):
        fit(method, callbacks=[GraphedSteps()])


def test_what_a_teacher_computes_in_a_graph_is_counted(fit: Fit, recordings: list[Recording], tmp_path: Path) -> None:
    class Untrained(FrozenTeacher):
        untrained = True

    torch.manual_seed(0)
    inner = Untrained(DigitsConv(widths=(8, 8, 8)))
    method = LogitMatching(CachedTeacher(inner, cache_dir=str(tmp_path)), student=student())
    fit(method, Digits(train_per_class=19, batch_size=20, val_fraction=0.1), callbacks=[GraphedSteps()], max_epochs=3)
    found = method.teacher
    assert isinstance(found, CachedTeacher)
    assert recordings[0].replayed == REPLAYED
    assert (found.images_answered, found.images_computed) == (3 * 190, 3 * 190)


def test_without_a_gpu_the_overlay_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", "--config", "digits/independent", "--config", "run/cuda_graphs", "--trainer.accelerator", "cpu"]
    assert main([*arguments, "--runs_dir", str(tmp_path)]) == 2
    assert "CUDA graphs are of NVIDIA GPUs, and the device is cpu" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_stopped_goes_on_with_the_same_student(
    fit: Fit, recordings: list[Recording], tmp_path: Path
) -> None:
    def method() -> Method:
        torch.manual_seed(0)
        return IndependentStudent(student=student(), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3))

    whole, parts, checkpoint = method(), method(), tmp_path / "half.ckpt"
    fit(whole, callbacks=[GraphedSteps()], max_epochs=4)
    fit(method(), callbacks=[GraphedSteps()], max_epochs=2).save_checkpoint(checkpoint)
    fit(parts, callbacks=[GraphedSteps()], max_epochs=4, ckpt_path=checkpoint)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert [each.captured for each in recordings] == [4, 2, 2]


def test_a_run_of_graphs_goes_on_without_them(fit: Fit, recordings: list[Recording], tmp_path: Path) -> None:
    def method() -> Method:
        torch.manual_seed(0)
        return IndependentStudent(student=student(), optimizer=torch.optim.Adam)

    checkpoint = tmp_path / "half.ckpt"
    fit(method(), callbacks=[GraphedSteps()], max_epochs=2).save_checkpoint(checkpoint)
    with pytest.MonkeyPatch.context() as patch:  # as a processor is
        adam = sys.modules[torch.optim.Adam.__module__]
        patch.setattr(adam, "_get_capturable_supported_devices", lambda: ["cuda"])
        trainer = fit(method(), max_epochs=3, ckpt_path=checkpoint)
    assert not any(group["capturable"] for group in trainer.optimizers[0].param_groups)
