"""When profilers run, on what, where results go, and that a training never notices."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import nn

from kdlab.data import Digits
from kdlab.errors import UsageError
from kdlab.methods import FitNet, HintTransfer, IndependentStudent
from kdlab.models import DigitsConv
from kdlab.profiling import (
    EnergyProfiler,
    LatencyProfiler,
    MACsProfiler,
    Measurement,
    ModelSizeProfiler,
    NotMeasured,
    Profiler,
)
from kdlab.teachers import FrozenTeacher


@dataclass(frozen=True)
class Width(Measurement):
    width_px: int
    depth_px: int | None = None

    def metrics(self):
        return {"width_px": self.width_px, "depth_px": self.depth_px}


class WidthProfiler(Profiler):
    section = "width"
    headline = ("width_px", "depth_px")

    def __init__(self, error: Exception | None = None):
        super().__init__()
        self.error = error
        self.seen: list[tuple[nn.Module, torch.Tensor]] = []

    def measure(self, network, image):
        self.seen.append((network, image))
        if self.error:
            raise self.error
        network(image)
        return Width(image.shape[-1])


class Kept(Logger):
    name, version = "kept", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def digits():
    return Digits(train_per_class=5, batch_size=25, val_fraction=0.1)


def independent():
    torch.manual_seed(0)
    return IndependentStudent(student=DigitsConv())


def trainer(*callbacks, logger=False, **arguments):
    return pl.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=list(callbacks), logger=logger, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **arguments,
    )  # fmt: skip


def everything(method):
    """All that a profiler could have moved, as values."""
    return {
        "state": {name: tensor.clone() for name, tensor in method.state_dict().items()},
        "modes": [module.training for module in method.modules()],
        "flags": [parameter.requires_grad for parameter in method.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in method.parameters()],
        "random": torch.random.get_rng_state(),
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in method.modules()],
        "threads": torch.get_num_threads(),
        "fastpath": torch.backends.mha.get_fastpath_enabled(),
    }


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)  # bit for bit, through dicts and lists


def test_a_profiler_runs_once_when_a_test_ends_and_not_in_training_or_validation():
    profiler, method, data = WidthProfiler(), independent(), digits()
    run = trainer(profiler)
    run.fit(method, datamodule=data)
    run.validate(method, datamodule=data, verbose=False)
    assert profiler.seen == []
    assert profiler.as_dict() == {"width_px": None, "depth_px": None, "reason": "it has not run yet"}
    run.test(method, datamodule=data, verbose=False)
    assert len(profiler.seen) == 1
    assert profiler.result == Width(8)


def test_a_profiler_gets_a_copy_of_the_student_and_one_image_of_the_data():
    profiler, method = WidthProfiler(), independent()
    trainer(profiler).test(method, datamodule=digits(), verbose=False)
    network, image = profiler.seen[0]
    assert type(network) is DigitsConv
    assert network is not method.student
    assert not network.training
    assert image.shape == (1, 1, 8, 8)


def test_metrics_go_to_the_loggers_under_stable_keys_and_what_was_not_measured_is_absent():
    profiler, logger = WidthProfiler(), Kept()
    trainer(profiler, logger=logger).test(independent(), datamodule=digits(), verbose=False)
    assert (0, {"profile/width_px": 8}) in logger.rows
    assert profiler.as_metrics() == {"profile/width_px": 8}
    assert profiler.as_dict() == {"width_px": 8, "depth_px": None}


def test_a_network_that_cannot_be_measured_costs_the_figure_and_not_the_run(caplog):
    profiler, logger = WidthProfiler(RuntimeError("shape [1] is invalid\nsecond line")), Kept()
    with caplog.at_level(logging.INFO):
        trainer(profiler, logger=logger).test(independent(), datamodule=digits(), verbose=False)
    assert profiler.result == NotMeasured("RuntimeError: shape [1] is invalid")
    assert profiler.as_metrics() == {}
    assert profiler.as_dict() == {"width_px": None, "depth_px": None, "reason": "RuntimeError: shape [1] is invalid"}
    assert not [row for _, row in logger.rows if any(key.startswith("profile/") for key in row)]
    assert "width of DigitsConv could not be measured: RuntimeError: shape [1] is invalid" in caplog.text


def test_other_processes_do_not_measure():
    profiler = WidthProfiler()
    profiler.on_test_end(SimpleNamespace(is_global_zero=False), independent())
    assert profiler.seen == []


def test_a_system_without_a_student_is_an_error_before_anything_starts():
    with pytest.raises(
        UsageError, match=r"MACsProfiler measures the student of a method, but LightningModule has none"
    ):
        MACsProfiler().setup(SimpleNamespace(datamodule=digits()), pl.LightningModule(), "fit")


def test_data_without_an_image_shape_are_an_error_before_anything_starts():
    with pytest.raises(
        UsageError, match=r"must know the shape of an image, but the data are NoneType; use a data module"
    ):
        MACsProfiler().setup(SimpleNamespace(datamodule=None), independent(), "fit")


PROFILERS = [
    LatencyProfiler(batch_size=4, seconds=0.02, variants=("eager", "bf16")),
    MACsProfiler(thop_style=True),
    ModelSizeProfiler(),
    EnergyProfiler(),
]


@pytest.mark.parametrize("profiler", PROFILERS, ids=lambda profiler: profiler.section)
def test_profiling_moves_nothing(profiler):
    method, data = independent(), digits()
    run = trainer()
    run.fit(method, datamodule=data)
    method.student.train()
    method.student.layer1.requires_grad_(False)
    before = everything(method)
    profiler.on_test_end(SimpleNamespace(is_global_zero=True, datamodule=data, loggers=[]), method)
    assert profiler.result is not None
    assert_same(everything(method), before)


def test_training_goes_on_to_the_same_weights_whether_or_not_it_was_profiled():
    def weights(*profilers):
        method, data = independent(), digits()
        for _ in range(2):
            run = trainer(*profilers)
            run.fit(method, datamodule=data)
            run.test(method, datamodule=data, verbose=False)
        return method.state_dict()

    assert_same(weights(*PROFILERS), weights())


def test_students_of_different_methods_have_the_same_macs_and_size():
    teacher, layers = (
        FrozenTeacher(DigitsConv(widths=(8, 8, 8))),
        {"student_layers": ["layer2"], "teacher_layers": ["layer2"]},
    )
    methods = [
        independent(),
        HintTransfer(teacher, student=DigitsConv(), **layers),
        FitNet(teacher, hint_epochs=1, student=DigitsConv(), **layers),
    ]
    figures = []
    for method in methods:
        macs, size = MACsProfiler(thop_style=True), ModelSizeProfiler()
        run, data = trainer(macs, size, limit_train_batches=1), digits()
        run.fit(method, datamodule=data)  # builds the regressors, taps the student's layer and takes a step
        run.test(method, datamodule=data, verbose=False)
        figures.append((macs.as_dict(), size.as_dict()))
    assert [len(getattr(method, "regressors", ())) for method in methods] == [0, 1, 1]
    assert figures[0] == figures[1] == figures[2]
    assert figures[0][1]["parameters"] == 613


def test_results_are_json_values():
    for profiler in PROFILERS:
        profiler.profile(DigitsConv(), (1, 8, 8))
        assert json.loads(json.dumps(profiler.as_dict(), allow_nan=False))
        assert all(isinstance(value, int | float) for value in profiler.as_metrics().values())
