"""What holds for every method alike: the teacher's bits, a pure hook, exact resumes, copies, repeated set-up."""

import copy
import io

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

import kdlab.methods
from kdlab.errors import IntegrityError
from kdlab.losses import DecoupledKD, HintLoss, LinearWarmup
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
from kdlab.teachers import EMATeacher, FrozenTeacher, Teacher, TeacherEnsemble
from kdlab.types import Outputs
from kdlab.weights import digest

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.02)


def frozen():
    return FrozenTeacher(DigitsConv(widths=(4, 5, 6)))


def feature(method, layer="layer2", **arguments):
    layers = {"student_layers": [layer], "teacher_layers": [layer]}
    return method(frozen(), student=DigitsConv(), optimizer=adam, **layers, **arguments)


def logits(teacher, **arguments):
    return LogitMatching(teacher, student=DigitsConv(), optimizer=adam, **arguments)


def ensemble():
    members = [
        IndependentStudent(student=DigitsConv()),
        logits(frozen()),
        feature(HintTransfer),
        feature(FitNet, hint_epochs=1),
        MutualLearning([DigitsConv()], student=DigitsConv()),
        logits(EMATeacher(0.9)),
    ]
    return SubStudentEnsemble(members, optimizer=adam)


METHODS = {
    "independent": lambda: IndependentStudent(student=DigitsConv(), optimizer=adam),
    "logit_matching": lambda: logits(frozen()),
    "decoupled_with_warmup": lambda: logits(frozen(), logit_loss=LinearWarmup(DecoupledKD(), epochs=3)),
    "logit_standardization": lambda: LogitStandardization(frozen(), student=DigitsConv(), optimizer=adam),
    "teacher_ensemble": lambda: logits(TeacherEnsemble([frozen(), frozen()])),
    "ema_teacher": lambda: logits(EMATeacher(0.9)),
    "feature_matching": lambda: feature(FeatureMatching, "layer3", feature_loss=HintLoss()),
    "hint_transfer": lambda: feature(HintTransfer),
    "fitnet": lambda: feature(FitNet, hint_epochs=1),
    "attention_transfer": lambda: feature(AttentionTransfer),
    "similarity_preserving": lambda: feature(SimilarityPreserving),
    "relational_kd": lambda: feature(RelationalKD, "pool"),
    "probabilistic_kt": lambda: feature(ProbabilisticKT, "pool"),
    "mutual_learning": lambda: MutualLearning([DigitsConv(), DigitsConv()], student=DigitsConv(), optimizer=adam),
    "sub_student_ensemble": ensemble,
}
all_methods = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


def frozen_teachers(method):
    return [module for module in method.modules() if isinstance(module, Teacher) and not module.learns]


def unlabelled(state):
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}


def test_the_list_has_every_public_method():
    built = {type(make()) for make in METHODS.values()}
    assert built | {Method} == {getattr(kdlab.methods, name) for name in kdlab.methods.__all__}


@all_methods
def test_training_changes_no_bit_of_a_frozen_teacher_and_leaves_it_in_eval_mode(fit, make):
    method = make()
    teachers = frozen_teachers(method)
    before = [digest(teacher) for teacher in teachers]
    student = digest(method.student)
    fit(method)
    assert [digest(teacher) for teacher in teachers] == before
    assert not any(part.training for teacher in teachers for part in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for teacher in teachers for p in teacher.parameters())
    assert digest(method.student) != student


@all_methods
def test_the_optimizer_has_each_trained_parameter_once_and_none_of_a_teacher(fit, make):
    method = make()
    trainer = fit(method, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    held = [id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]]
    theirs = {id(p) for module in method.modules() if isinstance(module, Teacher) for p in module.parameters()}
    assert sorted(held) == sorted({id(p) for p in method.parameters()} - theirs)


@all_methods
def test_a_checkpoint_holds_each_weight_once_and_no_frozen_teacher(fit, make):
    method = make()
    fit(method, max_epochs=1, limit_train_batches=2)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    state = unlabelled(torch.load(file, weights_only=True))
    addresses = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(addresses)) == len(addresses)
    saved = sum(tensor.numel() for tensor in state.values())
    ours = {id(t): t.numel() for t in [*method.parameters(), *method.buffers()]}
    for teacher in frozen_teachers(method):
        for tensor in [*teacher.parameters(), *teacher.buffers()]:
            ours.pop(id(tensor), None)
    metrics = sum(t.numel() for name, t in method.named_buffers() if "metrics" in name)
    assert saved == sum(ours.values()) - metrics


@all_methods
def test_a_checkpoint_loads_into_a_fresh_method(fit, make, bits):
    method, other = make(), make()
    fit(method, max_epochs=1, limit_train_batches=2)
    fit(other, max_epochs=0)
    state = copy.deepcopy(method.state_dict())
    assert bits(other.state_dict()) != bits(state)
    other.load_state_dict(state)
    assert bits(other.state_dict()) == bits(state)
    some = next(name for name in state if name.endswith("fc.weight"))
    with pytest.raises(IntegrityError, match="1 tensors are missing"):
        other.load_state_dict({name: tensor for name, tensor in state.items() if name != some})


@all_methods
def test_every_method_resumes_exactly_in_mid_epoch_and_between_epochs(resumes_exactly, make):
    resumes_exactly(make, steps=[13])


@all_methods
def test_the_hook_is_pure(fit, make):
    method = make()
    trainer = fit(method, max_epochs=0)
    batch = trainer.datamodule.plain_view(next(iter(trainer.datamodule.train_dataloader())))
    student, teacher = method.ask_student(batch), method.ask_teacher(batch)
    networks = [method.student, *(m.peers for m in method.modules() if isinstance(m, MutualLearning))]
    networks += [module for module in method.modules() if isinstance(module, Teacher)]

    def refuse(*_):
        pytest.fail("the hook called a network")

    for network in networks:
        for module in network.modules():
            module.register_forward_pre_hook(refuse)
    first = method.losses(student, teacher, batch)
    second = method.losses(student, teacher, batch)
    assert list(first) == list(second)
    for name, term in first.items():
        assert term.shape == ()
        assert term.dtype == torch.float32
        assert torch.isfinite(term)
        assert term.requires_grad
        assert term.equal(second[name])


@all_methods
def test_setting_up_twice_changes_nothing(fit, make, bits):
    method = make()
    trainer = fit(method, max_epochs=0)
    before, modes = bits(method.state_dict()), [part.training for part in method.modules()]
    parameters = [id(p) for p in method.parameters()]
    method.trainer = trainer
    for stage in ("fit", "validate", "fit"):
        method.setup(stage)
    assert bits(method.state_dict()) == before
    assert [id(p) for p in method.parameters()] == parameters
    assert [part.training for part in method.modules()] == modes


@all_methods
def test_a_copy_trains_on_its_own_and_to_the_same_end(fit, make, bits):
    method = make()
    before = bits(method.state_dict())
    twin = copy.deepcopy(method)
    for each in (twin, method):
        assert bits(method.state_dict()) == before
        torch.manual_seed(3)  # of regressors, which `fit` builds
        fit(each, max_epochs=1, limit_train_batches=3)
    assert bits(method.state_dict()) == bits(twin.state_dict())
    again = copy.deepcopy(method)  # after training: adapters, averages and all
    assert bits(again.state_dict()) == bits(method.state_dict())
    shared = {id(t) for t in [*method.parameters(), *method.buffers()]}
    assert not shared & {id(t) for t in [*again.parameters(), *again.buffers()]}


@all_methods
def test_in_eval_mode_answers_do_not_depend_on_the_batch_and_nothing_moves(fit, make, sixty_four):
    method = make()
    fit(method, max_epochs=1, limit_train_batches=2)
    method.eval()
    before = digest(method.student)
    whole = method(sixty_four.image)
    assert whole[:5].allclose(method(sixty_four.image[:5]), atol=1e-5)  # another kernel for another batch size
    assert whole.allclose(method.evaluate(sixty_four.image).logits, atol=1e-5)
    assert digest(method.student) == before
    method.train()
    assert not any(part.training for teacher in frozen_teachers(method) for part in teacher.modules())


@all_methods
def test_bfloat16_autocast_trains_with_finite_float32_terms(fit, make):
    method = make()
    trainer = fit(method, max_epochs=2, limit_train_batches=2, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert all(p.dtype == torch.float32 for p in method.parameters())


class CarelessTeacher(Teacher):
    """A user's own, that neither freezes its network nor puts it into eval mode."""

    def __init__(self):
        super().__init__()
        self.network = DigitsConv()

    def forward(self, batch):
        return Outputs(self.network(batch.image))


def test_a_users_own_teacher_is_frozen_by_the_method(fit):
    teacher = CarelessTeacher()
    before = digest(teacher)
    fit(logits(teacher), max_epochs=1)
    assert digest(teacher) == before
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(isinstance(part, nn.BatchNorm2d) and part.training for part in teacher.modules())


def test_the_warmup_follows_the_epoch_also_after_a_resume_in_mid_epoch(fit, tmp_path):
    class Factors(pl.Callback):
        def __init__(self, keep=None):
            self.seen, self.keep = [], keep

        def on_train_batch_end(self, trainer, pl_module, *_):
            self.seen.append((trainer.current_epoch, pl_module.logit_loss.factor))
            if trainer.global_step == self.keep:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    def run(keep=None, **arguments):
        torch.manual_seed(1)  # the same teacher again
        method, factors = METHODS["decoupled_with_warmup"](), Factors(keep)
        fit(method, callbacks=[factors], max_epochs=4, **arguments)
        return factors.seen

    whole = run(keep=13)  # in the second epoch of nine batches
    assert whole == [(epoch, pytest.approx(min(epoch + 1, 3) / 3)) for epoch in range(4) for _ in range(9)]
    assert run(ckpt_path=tmp_path / "middle.ckpt") == whole[13:]
