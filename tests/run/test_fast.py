"""Faster steps compute the same, and leave the networks as they were."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from kdlab.cli import main
from kdlab.methods import HintTransfer, IndependentStudent, LogitMatching, Method, MutualLearning, SubStudentEnsemble
from kdlab.models import DigitsConv, MNISTNarrowConv
from kdlab.run.fast import ChannelsLast, CompiledNetworks
from kdlab.teachers import FrozenTeacher

Fit = Callable[..., pl.Trainer]


def matching() -> LogitMatching:
    torch.manual_seed(0)
    return LogitMatching(FrozenTeacher(DigitsConv(widths=(8, 8, 8))), student=DigitsConv(widths=(3, 6, 6)))


def hints() -> HintTransfer:
    torch.manual_seed(0)
    teacher = FrozenTeacher(DigitsConv(widths=(8, 8, 8)))
    student = DigitsConv(widths=(3, 6, 6))
    return HintTransfer(teacher, student_layers=["layer2"], teacher_layers=["layer2"], student=student)


def ensemble() -> SubStudentEnsemble:
    torch.manual_seed(0)
    return SubStudentEnsemble([IndependentStudent(student=DigitsConv(widths=(3, 6, 6))) for _ in range(2)])


def mutual() -> MutualLearning:
    torch.manual_seed(0)
    student, peer = (DigitsConv(widths=(3, 6, 6)) for _ in range(2))
    return MutualLearning([peer], student=student)


def trained(fit: Fit, method: Method, *callbacks: pl.Callback) -> dict[str, Tensor]:
    """What is saved of a method after two epochs."""
    torch.manual_seed(1)  # of adapters
    fit(method, callbacks=list(callbacks))
    return {name: tensor for name, tensor in method.state_dict().items() if not name.startswith("teacher.")}


class Layouts(pl.Callback):
    """Whether the convolutions of student and teacher are in channels-last order at each step."""

    def __init__(self) -> None:
        self.seen: set[bool] = set()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        # a kernel of one pixel or one channel is in both orders
        kernels = [m.weight for m in pl_module.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
        assert kernels
        self.seen |= {kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels}


@pytest.mark.parametrize("make", [matching, hints, ensemble, mutual])
def test_channels_last_changes_the_order_in_memory_for_the_length_of_training(
    make: Callable[[], Method], fit: Fit
) -> None:
    layouts = Layouts()
    plain, turned = trained(fit, make()), trained(fit, make(), ChannelsLast(), layouts)
    assert layouts.seen == {True}
    assert all(tensor.is_contiguous() for tensor in turned.values())
    torch.testing.assert_close(turned, plain, rtol=1e-3, atol=1e-4)


def test_a_network_that_is_channels_last_by_itself_stays_so(fit: Fit) -> None:
    method = IndependentStudent(student=MNISTNarrowConv(image_size=8))
    fit(method, callbacks=[ChannelsLast()])
    kernel = method.student.get_parameter("conv2.weight")
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()


# the peers of mutual learning are of one shape and share a graph
@pytest.mark.parametrize(("make", "graphs_made"), [(matching, 2), (hints, 2), (mutual, 1)])
def test_compiled_networks_compute_the_same_and_only_whole_batches_are_compiled(
    make: Callable[[], Method], graphs_made: int, fit: Fit
) -> None:
    torch._dynamo.reset()
    method, graphs = make(), CompileCounterWithBackend("aot_eager")
    plain = trained(fit, make())
    compiled = trained(fit, method, CompiledNetworks(backend=graphs))  # type: ignore[arg-type]  # torch takes functions
    assert graphs.frame_count == graphs_made  # no other graph for the smaller last batch, validation or a second epoch
    assert method.student._compiled_call_impl is None
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)  # of the same names, too


def test_an_error_in_training_leaves_plain_networks(fit: Fit) -> None:
    class Broken(pl.Callback):
        def on_train_batch_end(self, *args: object) -> None:
            raise ZeroDivisionError

    method = matching()
    with pytest.raises(ZeroDivisionError):
        fit(method, callbacks=[CompiledNetworks(backend="eager"), Broken()])
    assert method.student._compiled_call_impl is None
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_without_a_compiler_the_run_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["fit", "--config", "digits/independent", "--config", "run/compiled", "--runs_dir", str(tmp_path)]
    assert main(arguments) == 2
    assert "CompiledNetworks needs a C++ compiler" in capsys.readouterr().err.splitlines()[-1]


def test_the_overlays_train(tmp_path: Path) -> None:
    overlays = ["--config", "run/fast_cpu", "--config", "run/compiled", "--trainer.callbacks.backend", "eager"]
    arguments = ["fit", "--config", "digits/independent", *overlays, "--runs_dir", str(tmp_path)]
    assert main([*arguments, "--trainer.max_epochs", "1"]) == 0
    assert (tmp_path / "digits" / "independent-seed0" / "result.json").exists()
