"""What the base class promises to every method: the teacher untouched, exact checkpoints, clear errors."""

import io
import math

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader

from kdlab.data import Digits
from kdlab.errors import IntegrityError, NumericalError, UsageError
from kdlab.methods import IndependentStudent, LogitMatching, Method
from kdlab.models import DigitsConv
from kdlab.teachers import FrozenTeacher
from kdlab.types import Batch, Outputs
from kdlab.weights import digest

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


def distiller(student=None, teacher=None, **arguments):
    teacher = FrozenTeacher(DigitsConv(widths=(4, 5, 6))) if teacher is None else teacher
    return LogitMatching(student=student or DigitsConv(), teacher=teacher, **arguments)


class Dropout(nn.Module):
    """A linear classifier behind dropout: its training is random inside the step."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, image):
        return self.fc(F.dropout(image.flatten(1), 0.5, self.training))


class Rows(Logger):
    """Keeps what is logged."""

    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_, **__):
        pass


# -- the teacher ----------------------------------------------------------------------------------------------


class TeacherWatch(pl.Callback):
    """Writes down, at each step and validation, whether the teacher is in eval mode and has its first bits."""

    def __init__(self, module):
        self.before = digest(module.teacher)
        self.seen = []

    def look(self, module):
        modes = [part.training for part in module.teacher.modules()]
        gradients = [p.grad is not None or p.requires_grad for p in module.teacher.parameters()]
        self.seen.append((any(modes), any(gradients), digest(module.teacher) == self.before))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.look(pl_module)

    def on_validation_batch_end(self, trainer, pl_module, *_):
        self.look(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.look(pl_module)


def test_the_teacher_is_the_same_bits_and_in_eval_mode_at_every_step(fit):
    method = distiller(optimizer=adam)
    before, student = digest(method.teacher), digest(method.student)
    watch = TeacherWatch(method)
    fit(method, callbacks=[watch])
    assert len(watch.seen) > 16
    assert set(watch.seen) == {(False, False, True)}
    assert digest(method.teacher) == before
    assert digest(method.student) != student


def test_the_teacher_stays_in_eval_mode_whatever_is_asked_of_the_method():
    method = distiller()
    for ask in (method.train, method.teacher.train, lambda: method.train(True), method.eval):
        ask()
        assert not any(part.training for part in method.teacher.modules())
    method.train()
    assert method.student.training


def test_the_teacher_is_asked_without_gradients(sixty_four):
    method = distiller()
    method.teacher.requires_grad_(True)  # as a teacher that is updated otherwise might
    outputs = method.ask_teacher(sixty_four)
    assert not outputs.logits.requires_grad
    assert outputs.logits.shape == (64, 10)


def test_the_optimizer_holds_the_students_parameters_and_no_others():
    method = distiller()
    optimizer = method.configure_optimizers()
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in method.student.parameters())


def test_a_frozen_part_of_the_student_is_not_trained():
    student = DigitsConv()
    student.layer1.requires_grad_(False)
    held = IndependentStudent(student=student).configure_optimizers().param_groups[0]["params"]
    assert sum(p.numel() for p in held) == sum(p.numel() for p in student.parameters() if p.requires_grad)


def test_the_scheduler_is_built_on_the_optimizer():
    method = distiller(optimizer=adam, lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1))
    configured = method.configure_optimizers()
    assert configured["lr_scheduler"]["scheduler"].optimizer is configured["optimizer"]


def test_ddp_is_told_to_leave_the_teacher_alone(fit):
    method = distiller()
    fit(method, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    names = {name for name, _ in method.named_parameters()} | {name for name, _ in method.named_buffers()}
    teachers = {name for name in names if name.startswith("teacher.")}
    assert teachers
    assert set(method._ddp_params_and_buffers_to_ignore) == teachers


# -- checkpoints ----------------------------------------------------------------------------------------------


def test_the_state_dict_holds_the_student_and_no_teacher():
    method = distiller()
    assert set(method.state_dict()) == {f"student.{name}" for name in method.student.state_dict()}


def test_the_state_dict_under_a_prefix_holds_no_teacher_either():
    outer = nn.ModuleDict({"inner": distiller()})
    assert not [name for name in outer.state_dict() if "teacher" in name]


def test_a_saved_checkpoint_holds_no_teacher_and_is_read_without_pickle(fit, tmp_path):
    method = distiller(teacher=FrozenTeacher(DigitsConv(widths=(32, 64, 64))), optimizer=adam)
    trainer = fit(method)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if name.startswith("teacher")]
    moments = checkpoint["optimizer_states"][0]["state"]
    assert len(moments) == len(list(method.student.parameters()))
    saved = [checkpoint["state_dict"], *moments.values()]
    size = sum(t.nbytes for tensors in saved for t in tensors.values() if isinstance(t, torch.Tensor))
    student = sum(t.nbytes for t in method.student.state_dict().values())
    assert size <= 3.2 * student  # weights and Adam's two moments; the teacher would be 90 times the student


def test_a_method_survives_saving_and_loading(sixty_four):
    method = distiller().eval()
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    torch.manual_seed(7)
    other = distiller(teacher=method.teacher).eval()
    assert not other(sixty_four.image).equal(method(sixty_four.image))
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(sixty_four.image).equal(method(sixty_four.image))


def test_loading_leaves_the_teacher_alone():
    method, other = distiller(), distiller()
    before = digest(other.teacher)
    other.load_state_dict(method.state_dict())
    assert digest(other.teacher) == before
    assert digest(other.student) == digest(method.student)


def test_loading_rejects_missing_and_left_over_tensors_and_names_them():
    method = distiller()
    state = method.state_dict()
    missing = {name: tensor for name, tensor in state.items() if name != "student.fc.weight"}
    with pytest.raises(IntegrityError, match=r"1 tensors are missing \['student.fc.weight'\]") as caught:
        method.load_state_dict(missing)
    assert "\n" not in str(caught.value)
    with pytest.raises(IntegrityError, match=r"1 are not known here \['student.fc2.weight'\]"):
        method.load_state_dict({**state, "student.fc2.weight": torch.zeros(2)})
    method.load_state_dict(missing, strict=False)


def test_a_resume_in_mid_epoch_ends_with_the_same_student_and_the_same_means(fit, tmp_path):
    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 4:  # of nine in the epoch
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    def run(callbacks, ckpt_path=None):
        method, rows = IndependentStudent(student=Dropout(), seed=3), Rows()
        method.load_state_dict(start)
        fit(method, callbacks=callbacks, ckpt_path=ckpt_path, logger=rows, log_every_n_steps=100)
        return digest(method.student), rows.rows

    start = IndependentStudent(student=Dropout()).state_dict()
    student, rows = run([Keep()])
    torch.rand(17)  # another state of the global generator than that of the uninterrupted run
    assert run([], tmp_path / "middle.ckpt") == (student, rows)
    assert {"train/loss", "train/label_loss", "train/accuracy", "val/accuracy"} <= {
        name for _, row in rows for name in row
    }


# -- checks before training -----------------------------------------------------------------------------------


def expect_usage_error(fit, method, match):
    with pytest.raises(UsageError, match=match) as caught:
        fit(method, max_epochs=1)
    assert "\n" not in str(caught.value)


def test_a_student_with_another_number_of_classes_is_an_error_with_the_fix(fit):
    expect_usage_error(
        fit,
        IndependentStudent(student=DigitsConv(num_classes=100)),
        r"DigitsConv returns 100 logits but the data has 10 classes; set model\.student\.init_args\.num_classes: 10$",
    )


def test_a_teacher_with_another_number_of_classes_is_an_error_with_the_fix(fit):
    expect_usage_error(
        fit,
        distiller(teacher=FrozenTeacher(DigitsConv(num_classes=7))),
        r"teacher returns 7 logits but the data has 10 classes; set model\.teacher\..*num_classes: 10$",
    )


def test_a_student_for_other_channels_is_an_error_with_the_fix(fit):
    expect_usage_error(
        fit,
        IndependentStudent(student=DigitsConv(in_channels=3)),
        "DigitsConv cannot read 1x8x8 images.*in_channels: 1$",
    )


def test_a_teacher_for_other_channels_is_an_error(fit):
    expect_usage_error(
        fit,
        distiller(teacher=FrozenTeacher(DigitsConv(in_channels=3))),
        "the teacher cannot read 1x8x8 images.*in_channels: 1$",
    )


def test_a_student_for_another_image_size_is_an_error(fit):
    student = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
    expect_usage_error(fit, IndependentStudent(student=student), "cannot read 1x8x8 images")


def test_trying_the_student_changes_nothing_in_it(fit):
    method = IndependentStudent(student=DigitsConv())
    method.student.layer1.eval()  # a part whose batch norm shall stay as it is
    before, modes = digest(method.student), [part.training for part in method.student.modules()]
    trainer = fit(method, max_epochs=0)
    assert trainer.global_step == 0
    assert digest(method.student) == before  # a blank image in training mode would move the batch norm's statistics
    assert [part.training for part in method.student.modules()] == modes


def test_a_missing_teacher_checkpoint_stops_fit_and_says_how_to_get_one(fit, tmp_path):
    teacher = FrozenTeacher(DigitsConv(), checkpoint=str(tmp_path / "none.safetensors"))
    with pytest.raises(IntegrityError, match=r"teacher: checkpoint .*none\.safetensors does not exist.*kdlab fit"):
        fit(distiller(teacher=teacher))


# -- numbers that are none ------------------------------------------------------------------------------------


class BadTerm(Method):
    """A label term, and another that is no number from the third step on."""

    bad = math.nan

    def losses(self, student: Outputs, teacher: Outputs | None, batch: Batch):
        label = F.cross_entropy(student.logits, batch.label)
        return {"label": label, "other": label * (self.bad if self.global_step >= 2 else 1.0)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_names_the_term_and_the_step(fit, bad):
    method = BadTerm(student=DigitsConv())
    method.bad = bad
    with pytest.raises(NumericalError, match=r"other_loss is (nan|inf|-inf) at step 2 \(epoch 0\).*learning rate"):
        fit(method)
    assert all(torch.isfinite(p).all() for p in method.student.parameters())


def test_a_teacher_that_answers_nan_stops_the_run(fit):
    teacher = FrozenTeacher(DigitsConv())
    teacher.network.fc.bias.data[3] = math.nan
    with pytest.raises(NumericalError, match=r"logit_loss is nan at step 0"):
        fit(distiller(teacher=teacher))


# -- randomness inside a step ---------------------------------------------------------------------------------


class Position:
    """Of a training run, as far as the module can see it."""

    def __init__(self, epoch=1, rank=0):
        self.current_epoch, self.global_rank = epoch, rank


def step_noise(seed=1, epoch=1, batch_idx=2, rank=0):
    method = IndependentStudent(student=DigitsConv(), seed=seed)
    method._trainer = Position(epoch, rank)
    method.on_train_batch_start(None, batch_idx)
    return torch.rand(8)


def test_the_randomness_of_a_step_is_a_function_of_seed_epoch_batch_and_rank():
    first = step_noise()
    torch.rand(5)
    assert step_noise().equal(first)
    others = [step_noise(seed=2), step_noise(epoch=2), step_noise(batch_idx=1), step_noise(rank=1)]
    assert not any(other.equal(first) for other in others)


def test_the_counters_of_a_step_do_not_run_together():
    assert not step_noise(seed=1, epoch=11).equal(step_noise(seed=11, epoch=1))
    assert not step_noise(epoch=1, batch_idx=12).equal(step_noise(epoch=11, batch_idx=2))
    assert not step_noise(batch_idx=1, rank=12).equal(step_noise(batch_idx=11, rank=2))
    assert not step_noise(epoch=1, batch_idx=2).equal(step_noise(epoch=2, batch_idx=1))


class Disturb(pl.Callback):
    """Draws from the global generator between steps, as a profiler or a logger might."""

    def on_train_batch_end(self, *_):
        torch.rand(3)

    def on_validation_end(self, *_):
        torch.rand(3)


def trained_with_dropout(fit, seed, callbacks=()):
    torch.manual_seed(0)
    method = IndependentStudent(student=Dropout(), seed=seed)
    torch.manual_seed(seed if callbacks else 99)
    fit(method, callbacks=list(callbacks), max_epochs=1)
    return digest(method.student)


def test_dropout_does_not_depend_on_what_else_draws_random_numbers(fit):
    assert trained_with_dropout(fit, seed=3) == trained_with_dropout(fit, seed=3, callbacks=[Disturb()])
    assert trained_with_dropout(fit, seed=3) != trained_with_dropout(fit, seed=4)


# -- training and its log -------------------------------------------------------------------------------------


class InMemory(pl.LightningDataModule):
    """One batch, again and again."""

    image_shape, num_classes = (1, 8, 8), 10

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def train_dataloader(self):
        return DataLoader([self.batch], batch_size=None)


@pytest.mark.parametrize("kind", ["independent", "logit_matching"])
def test_a_method_overfits_64_images(fit, sixty_four, kind):
    if kind == "independent":
        method = IndependentStudent(student=DigitsConv(widths=(16, 32, 32)), optimizer=adam)
        target = sixty_four.label
    else:  # an untrained teacher: what is learnt can only come from it
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        network[1].weight.data *= 20  # distinct answers
        student = DigitsConv(widths=(16, 32, 32))
        method = distiller(student, FrozenTeacher(network), optimizer=adam, alpha=0.0, temperature=1.0)
        target = method.ask_teacher(sixty_four).logits.argmax(dim=-1)
        assert len(target.unique()) > 2
    trainer = fit(method, InMemory(sixty_four), max_epochs=60)
    prediction = method(sixty_four.image).argmax(dim=-1)  # in training mode: batch norm of these 64 images
    assert (prediction == target).float().mean() > 0.98
    if kind == "independent":
        assert float(trainer.callback_metrics["train/loss"]) < 0.05  # it starts at ln 10 = 2.3


def test_every_term_is_logged_by_its_name_and_their_sum_is_the_loss(fit):
    rows = Rows()
    fit(distiller(), logger=rows, log_every_n_steps=3)
    steps = [step for step, row in rows.rows if "train/loss_step" in row]
    assert steps == [2, 5, 8, 11, 14, 17]  # every third of two epochs of nine
    epochs = [(step, row) for step, row in rows.rows if "train/loss" in row]
    assert [row["epoch"] for _, row in epochs] == [0, 1]
    for _, row in epochs:
        # means over the epoch in float64 of float32 terms
        assert row["train/label_loss"] + row["train/logit_loss"] == pytest.approx(row["train/loss"], rel=1e-5)
        assert 0 <= row["train/accuracy"] <= 1
    validations = [row for _, row in rows.rows if "val/accuracy" in row]
    assert len(validations) == 2
    assert {"val/accuracy", "val/top5", "val/nll", "val/ece"} <= set(validations[0])


def test_the_test_reports_student_and_teacher_beside_each_other(fit):
    method = distiller(teacher=FrozenTeacher(DigitsConv(widths=(4, 5, 6))))
    trainer = fit(method, max_epochs=1, limit_train_batches=1)
    data = Digits()
    (metrics,) = trainer.test(method, datamodule=data, verbose=False)
    split = data.test_split
    image = split.images.float() / 255
    for role, key in ((method.student.eval(), "test/accuracy"), (method.teacher.network, "teacher/test_accuracy")):
        with torch.no_grad():
            accuracy = (role(image).argmax(dim=-1) == split.labels).double().mean().item()
        assert metrics[key] == pytest.approx(accuracy, abs=1e-6)  # logged as float32
    assert torch.tensor(method.test_report["confusion_matrix"]).sum() == len(split)


class WrongInEval(DigitsConv):
    """Its answers are numbers while it is trained, as with statistics of batch norms that have overflowed."""

    def forward(self, image):
        return super().forward(image) if self.training else super().forward(image) * torch.nan


def test_answers_that_are_no_numbers_end_a_validation_and_a_test(fit):
    said = "nll is nan: the student's answers to some images are no finite numbers"
    with pytest.raises(NumericalError, match=f"val/{said}"):
        fit(distiller(WrongInEval()), max_epochs=1, limit_train_batches=1)
    method = distiller(WrongInEval())
    trainer = fit(method, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    with pytest.raises(NumericalError, match=f"test/{said}"):
        trainer.test(method, datamodule=Digits(), verbose=False)


def test_a_run_is_not_continued_with_another_teacher(fit, tmp_path):
    method = distiller()
    fit(method, max_epochs=1).save_checkpoint(tmp_path / "one.ckpt")
    fit(method, max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    other = distiller()
    other.teacher.network.fc.bias.data += 1
    with pytest.raises(IntegrityError, match="started with another teacher"):
        fit(other, max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
