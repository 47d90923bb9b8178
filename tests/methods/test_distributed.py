"""Several processes train as one does on the same global batches: every method, every teacher, every logit loss.

The networks have no batch norm: its statistics are those of a process's own images, which is another computation.
"""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

import kdlab.losses
import kdlab.methods
import kdlab.teachers
from kdlab.data import Digits, Mixup, RandomCropFlip
from kdlab.losses import (
    DIST,
    DecoupledKD,
    DynamicTemperature,
    HintLoss,
    LinearWarmup,
    LogitLoss,
    MultiLevelKD,
    SoftTargets,
    StandardizedSoftTargets,
)
from kdlab.methods import (
    AttentionTransfer,
    FeatureMatching,
    FitNet,
    HintTransfer,
    IndependentStudent,
    LogitMatching,
    LogitStandardization,
    Method,
    MutualLearning,
    ProbabilisticKT,
    RelationalKD,
    SimilarityPreserving,
    SubStudentEnsemble,
)
from kdlab.models import DigitsConv
from kdlab.teachers import CachedTeacher, EMATeacher, FrozenTeacher, Teacher, TeacherEnsemble

GLOBAL_BATCH, EPOCHS = 32, 3  # of 200 images: six batches of 32 and one of 8; 21 steps
TOLERANCE = 1e-5  # float32: the order of sums differs
SLOW, FAST = (partial(torch.optim.SGD, lr=lr, momentum=0.9) for lr in (0.005, 0.1))


class Plain(nn.Sequential):
    """Two convolutions and a linear layer, without batch norm; dropout on request."""

    def __init__(self, width=6, dropout=0.0):
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout))
        parts = {
            "layer1": nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU()),
            "layer2": nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU()),
            "pool": pool,
            "fc": nn.Linear(4 * width, 10),
        }
        super().__init__(OrderedDict(parts))


def frozen():
    return FrozenTeacher(DigitsConv(widths=(4, 5, 6)))  # with batch norm, which stands still


def logits(teacher=None, dropout=0.0, optimizer=SLOW, **arguments):
    return LogitMatching(teacher or frozen(), student=Plain(dropout=dropout), optimizer=optimizer, **arguments)


def feature(method, student_layer="pool", teacher_layer="pool", **arguments):
    layers = {"student_layers": [student_layer], "teacher_layers": [teacher_layer]}
    return method(frozen(), student=Plain(), optimizer=SLOW, **layers, **arguments)


def ensemble():
    relational = feature(RelationalKD, relation_weight=0.02)
    members = [logits(), logits(EMATeacher(0.9)), feature(HintTransfer, hint_weight=1), relational]
    return SubStudentEnsemble(members, optimizer=SLOW)


def cached(folder, teacher):
    return CachedTeacher(teacher, cache_dir=str(folder), dtype="float32")


METHODS = {
    "independent": lambda _: IndependentStudent(0.1, student=Plain(), optimizer=SLOW),
    "logit_matching": lambda _: logits(),
    "logit_standardization": lambda _: LogitStandardization(frozen(), student=Plain(), optimizer=SLOW),
    "feature_matching": lambda _: feature(FeatureMatching, "fc", "fc", feature_loss=HintLoss()),
    "hint_transfer": lambda _: feature(HintTransfer, hint_weight=1),
    "hints_alone": lambda _: feature(HintTransfer, hint_weight=1, label_weight=0),
    "fitnet": lambda _: feature(FitNet, hint_epochs=1),
    "attention_transfer": lambda _: feature(AttentionTransfer, "layer1", "layer1", attention_weight=10),
    "similarity_preserving": lambda _: feature(SimilarityPreserving, similarity_weight=300),
    "relational_kd": lambda _: feature(RelationalKD, relation_weight=0.02),
    "probabilistic_kt": lambda _: feature(ProbabilisticKT, neighbour_weight=3000),
    "mutual_learning": lambda _: MutualLearning([Plain(4), Plain(5)], student=Plain(), optimizer=SLOW),
    "sub_student_ensemble": lambda _: ensemble(),
    "teacher_ensemble": lambda _: logits(TeacherEnsemble([frozen(), frozen()])),
    "ema_teacher": lambda _: logits(EMATeacher(0.9)),
    "cached_teacher": lambda folder: logits(cached(folder, frozen())),
    "ensemble_of_cached_teachers": lambda folder: logits(TeacherEnsemble([cached(folder, frozen()), frozen()])),
    "decoupled_kd": lambda _: logits(logit_loss=LinearWarmup(DecoupledKD(), epochs=3)),
    "dist": lambda _: logits(logit_loss=DIST(), logit_weight=0.2),
    "multi_level_kd": lambda _: logits(logit_loss=MultiLevelKD(class_weight=0.01)),
    "dynamic_temperature": lambda _: logits(logit_loss=DynamicTemperature()),
    "standardized_soft_targets": lambda _: logits(logit_loss=StandardizedSoftTargets()),
}  # fmt: skip
# whose loss relates the samples of a batch, so that half of the batch has another loss
RELATIONAL = ("sub_student_ensemble", "similarity_preserving", "relational_kd", "probabilistic_kt", "dist",
              "multi_level_kd")  # fmt: skip
every_method = pytest.mark.parametrize("name", METHODS)


def train(make, folder, world_size=1, mixing=None, batch_size=GLOBAL_BATCH, **options):
    """Train from the same start, on this process's share of the batches; what has been trained, by name."""
    warnings.simplefilter("ignore")  # Lightning's advice
    torch.manual_seed(1)
    method = make(folder)
    data = Digits(
        train_per_class=20, batch_size=batch_size // world_size, augmentation=RandomCropFlip(1), mixing=mixing
    )
    trainer = pl.Trainer(
        accelerator="cpu", devices=world_size, strategy="auto" if world_size == 1 else "ddp", max_epochs=EPOCHS,
        limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, **options,
    )  # fmt: skip
    trainer.fit(method, datamodule=data)
    assert trainer.global_step > 20
    state = {name: tensor for name, tensor in method.state_dict().items() if isinstance(tensor, torch.Tensor)}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


DIFFERENT = {
    "dropout": lambda folder, world_size: train(lambda _: logits(dropout=0.5, optimizer=FAST), folder, world_size),
    "mixing": lambda folder, world_size: train(lambda _: logits(optimizer=FAST), folder, world_size, Mixup()),
}


def train_all(folder, world_size):
    """What each process of a job does, or the only one."""
    ours = folder / str(world_size)
    trained = {name: train(make, ours / name, world_size) for name, make in METHODS.items()}
    trained |= {name: run(folder, world_size) for name, run in DIFFERENT.items()}
    torch.save(trained, folder / f"{world_size}-{os.environ.get('LOCAL_RANK', '0')}.pt")


def read(folder, world_size):
    return [torch.load(folder / f"{world_size}-{rank}.pt", weights_only=True) for rank in range(world_size)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def one(folder):
    """What one process has trained, by method."""
    train_all(folder, 1)
    return read(folder, 1)[0]


@pytest.fixture(scope="module")
def two(folder, ranks):
    """What each of two processes has trained."""
    assert ranks(2, train_all, folder, 2) == [0, 0]
    return read(folder, 2)


@pytest.fixture(scope="module")
def four(folder, ranks):
    """What each of four processes has trained."""
    assert ranks(4, train_all, folder, 4) == [0, 0, 0, 0]
    return read(folder, 4)


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def test_every_public_method_teacher_and_logit_loss_is_here(tmp_path):
    made = [make(tmp_path) for make in METHODS.values()]
    parts = {type(part) for method in made for part in method.modules()}
    assert {type(method) for method in made} | {Method} == {getattr(kdlab.methods, n) for n in kdlab.methods.__all__}
    for package, base in ((kdlab.teachers, Teacher), (kdlab.losses, LogitLoss)):
        public = [getattr(package, name) for name in package.__all__]
        assert {cls for cls in public if isinstance(cls, type) and issubclass(cls, base)} - {base} <= parts
    assert SoftTargets in parts


@every_method
def test_the_training_moves_far_more_than_it_may_differ(one, tmp_path, name):
    torch.manual_seed(1)
    start = METHODS[name](tmp_path).state_dict()
    shared = {key: tensor for key, tensor in one[name].items() if key in start}
    assert largest_difference(shared, {key: start[key] for key in shared}) > 1e-3


@every_method
def test_two_processes_train_what_one_trains(one, two, name):
    assert largest_difference(one[name], two[0][name]) < TOLERANCE


@every_method
def test_two_processes_hold_the_same_bits(two, name):
    assert largest_difference(two[0][name], two[1][name]) == 0


@pytest.mark.faults
@every_method
def test_four_processes_train_what_one_trains(one, four, name):
    assert largest_difference(one[name], four[0][name]) < TOLERANCE
    for other in four[1:]:
        assert largest_difference(four[0][name], other[name]) == 0


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_each_process_draws_or_mixes_for_itself_is_another_training(one, two, name):
    assert largest_difference(one[name], two[0][name]) > 100 * TOLERANCE
    assert largest_difference(two[0][name], two[1][name]) == 0


# -- what a teacher's cache remembers --------------------------------------------------------------------------------


def remembered(folder, world_size):
    """The rows of the one file that a job has filled: number -> content."""
    (file,) = (folder / str(world_size) / "cached_teacher").glob("*/rows.bin")
    words = np.frombuffer(file.read_bytes(), "<u4").reshape(-1, 11)  # ten logits and a checksum
    return {number: row[:10].view("<f4") for number, row in enumerate(words) if row.any()}


def test_two_processes_remember_in_one_file_what_one_process_remembers(one, two, folder):
    alone, together = remembered(folder, 1), remembered(folder, 2)
    assert alone.keys() == together.keys()
    assert 300 < len(alone) <= EPOCHS * 200  # of 200 images with 18 views, three epochs
    for number, row in alone.items():
        np.testing.assert_allclose(together[number], row, rtol=1e-5, atol=1e-5)


# -- accumulated gradients -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accumulated(folder):
    """What one process trains with batches of half the size, two for each step; 13 in an epoch."""
    halves = {"batch_size": GLOBAL_BATCH // 2, "accumulate_grad_batches": 2}
    return {name: train(make, folder / "halves" / name, **halves) for name, make in METHODS.items()}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in RELATIONAL])
def test_two_halves_accumulated_are_one_step_of_the_whole_batch(one, accumulated, name):
    assert largest_difference(one[name], accumulated[name]) < TOLERANCE


@pytest.mark.parametrize("name", RELATIONAL)
def test_a_loss_that_relates_samples_sees_only_those_of_a_half(one, accumulated, name):
    assert largest_difference(one[name], accumulated[name]) > 10 * TOLERANCE
