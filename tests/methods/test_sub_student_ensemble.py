"""An ensemble of methods: each member learns as it would alone, teachers are shared, and everything is saved once."""

import copy
import itertools
import logging

import lightning.pytorch as pl
import pytest
import torch

from kdlab.data import Digits, RandomCropFlip
from kdlab.errors import IntegrityError, UsageError
from kdlab.methods import (
    FitNet,
    HintTransfer,
    IndependentStudent,
    LogitMatching,
    MutualLearning,
    SubStudentEnsemble,
)
from kdlab.models import DigitsConv
from kdlab.teachers import EMATeacher, FrozenTeacher, TeacherEnsemble
from kdlab.types import SEED_STRIDE
from kdlab.weights import digest, load_weights, save_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals

TEACHER = (4, 5, 7)  # widths


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)


def independent(**arguments):
    return IndependentStudent(student=DigitsConv(**arguments))


def matching(teacher=None, **arguments):
    teacher = teacher or FrozenTeacher(DigitsConv(widths=TEACHER))
    return LogitMatching(teacher, student=DigitsConv(), **arguments)


def hinting(teacher=None, layer="layer2", method=HintTransfer, **arguments):
    teacher = teacher or FrozenTeacher(DigitsConv(widths=TEACHER))
    return method(teacher, student=DigitsConv(), student_layers=[layer], teacher_layers=[layer], **arguments)


def ensemble(*members, **arguments):
    return SubStudentEnsemble(list(members), optimizer=momentum, **arguments)


def some_data(seed=3):
    """90 images: the last batch is smaller."""
    augmentation = RandomCropFlip(1, flip=False)
    return Digits(train_per_class=9, batch_size=20, augmentation=augmentation, seed=seed, val_fraction=0.1)


# -- as alone -------------------------------------------------------------------------------------------------

MEMBERS = {
    "independent": independent,
    "logit_matching": matching,
    "hint_transfer": hinting,
    "fitnet": lambda: hinting(method=FitNet, hint_epochs=1),
    "mutual_learning": lambda: MutualLearning([DigitsConv()], student=DigitsConv()),
    "ema_teacher": lambda: matching(EMATeacher(0.8)),
}


def compare_with_alone(fit, members, tolerance, **arguments):
    alone = []
    system = ensemble(*members, **arguments)
    start = copy.deepcopy(system)
    fit(system, some_data())
    for m, member in enumerate(start.methods):
        member.optimizer_factory = momentum
        member.seed = m * SEED_STRIDE
        fit(member, some_data(seed=3 + m * SEED_STRIDE))
        alone.append(member)
    for m, member in enumerate(alone):
        own = dict(system.methods[m].named_parameters()) | dict(system.methods[m].named_buffers())
        for name, tensor in (*member.named_parameters(), *member.named_buffers()):
            if "metrics" not in name and "fidelity" not in name and not name.startswith("train_means"):
                assert tensor.allclose(own[name], rtol=tolerance, atol=tolerance), (m, name)


def test_members_learn_what_they_would_alone_bit_for_bit(fit):
    compare_with_alone(fit, [make() for make in MEMBERS.values()], tolerance=0.0)


def test_fused_members_learn_what_they_would_alone_up_to_rounding(fit):
    # 1e-4: float32 rounding, amplified by two epochs of batch norm over 10 to 20 images
    compare_with_alone(fit, [independent(), matching(), independent()], tolerance=1e-4, fusion="always")


def test_members_start_differently_and_see_another_order_and_other_views(fit):
    system, seen = ensemble(independent(), independent(), independent(), fusion="never"), []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append([part.index.tolist() for _, part in pl_module._parts(batch)])

    starts = {digest(network) for network in system.student.networks}
    assert len(starts) == 3
    fit(system, some_data(), max_epochs=1, callbacks=[Look()])
    orders = [list(itertools.chain(*(step[m] for step in seen))) for m in range(3)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(orders[0]))}  # each sees every image once
    alone = Digits(train_per_class=9, batch_size=20, seed=3, val_fraction=0.1).train_dataloader()
    assert orders[0] == torch.cat([batch.index for batch in alone]).tolist()
    assert [len(step[0]) for step in seen][-1] < 20  # the last batch is a part of one


# -- terms ----------------------------------------------------------------------------------------------------


def test_the_terms_are_those_of_the_members_by_number(fit, sixty_four):
    system = ensemble(matching(alpha=0.3, temperature=2.0), independent(), hinting())
    fit(system, max_epochs=0)
    batch = sixty_four._replace(**{name: getattr(sixty_four, name)[:63] for name in sixty_four._fields})
    student, teacher = system.ask_student(batch), system.ask_teacher(batch)
    terms = system.losses(student, teacher, batch)
    assert list(terms) == ["member0_label", "member0_logit", "member1_label", "member2_label", "member2_hint"]
    for m, member in enumerate(system.methods):
        part = type(batch)(*(tensor[21 * m : 21 * m + 21] for tensor in batch))
        for name, term in member.losses(member.ask_student(part), member.ask_teacher(part), part).items():
            assert terms[f"member{m}_{name}"].equal(term)


def test_terms_accuracies_and_disagreement_are_logged_and_right(fit):
    system = ensemble(independent(), matching(), hinting())
    trainer = fit(system)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {"train/member0_label_loss", "train/member1_logit_loss", "train/member2_hint_loss"} <= set(logged)
    data = trainer.datamodule
    image = (data.val_split.images.float() / 255 - data.mean[0]) / data.std[0]
    system.eval()
    answers = [network(image).argmax(dim=-1) for network in system.student.networks]
    for m, answer in enumerate(answers):
        expected = (answer == data.val_split.labels).double().mean().item()
        assert logged[f"val/member{m}_accuracy"] == pytest.approx(expected, abs=1e-6)  # logged as float32
    pairs = [(one != other).double().mean().item() for one, other in itertools.combinations(answers, 2)]
    assert logged["val/disagreement"] == pytest.approx(sum(pairs) / 3, abs=1e-6)
    assert logged["val/disagreement"] > 0
    probabilities = sum(network(image).softmax(dim=-1) for network in system.student.networks) / 3
    right = (probabilities.argmax(dim=-1) == data.val_split.labels).double().mean().item()
    assert logged["val/accuracy"] == pytest.approx(right, abs=1e-6)
    (tested,) = trainer.test(system, datamodule=data, verbose=False)
    assert {"test/member2_accuracy", "test/disagreement", "test/accuracy"} <= set(tested)


def combined(rule, logits):
    """The winning class by a plain loop over images."""
    winners = []
    for answers in zip(*logits, strict=True):
        mean_probability = sum(answer.double().softmax(dim=0) for answer in answers) / len(answers)
        if rule == "mean_logits":
            winners.append(sum(answers).argmax().item())
        elif rule == "mean_probabilities":
            winners.append(mean_probability.argmax().item())
        else:
            votes = [answer.argmax().item() for answer in answers]
            most = max(map(votes.count, votes))
            winners.append(max((v for v in votes if votes.count(v) == most), key=lambda v: mean_probability[v]))
    return winners


def quarrelling(**arguments):
    """Five members of very different confidence: each rule lets others win."""
    system = ensemble(*(independent() for _ in range(5)), **arguments).eval()
    for network, scale in zip(system.student.networks, (1.0, 1.0, 4.0, 8.0, 16.0), strict=True):
        network.fc.weight.data *= scale
    return system


@pytest.mark.parametrize("rule", ["mean_logits", "mean_probabilities", "vote"])
def test_the_answer_is_combined_by_the_rule(rule, sixty_four):
    system = quarrelling(combination=rule)
    logits = [network(sixty_four.image) for network in system.student.networks]
    assert system(sixty_four.image).argmax(dim=-1).tolist() == combined(rule, logits)
    outputs = system.evaluate(sixty_four.image)
    assert outputs.logits.argmax(dim=-1).tolist() == combined(rule, logits)
    assert len(outputs.members) == 5


def test_the_three_rules_do_not_agree_on_these_networks(sixty_four):
    system = quarrelling()
    logits = [network(sixty_four.image) for network in system.student.networks]
    assert len({tuple(combined(rule, logits)) for rule in ("mean_logits", "mean_probabilities", "vote")}) == 3


# -- teachers -------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    save_weights(DigitsConv(widths=TEACHER), tmp_path / "teacher.safetensors", {})
    return str(tmp_path / "teacher.safetensors")


def stored(checkpoint, **arguments):
    return FrozenTeacher(DigitsConv(widths=TEACHER), checkpoint=checkpoint, **arguments)


class Questions(pl.Callback):
    """How many images each teacher object is asked about, and how often."""

    def __init__(self, method):
        self.asked = {}
        for module in {id(m): m for m in method.modules() if isinstance(m, FrozenTeacher)}.values():
            module.register_forward_pre_hook(self.note)
        self.training = False

    def note(self, module, arguments):
        if self.training:
            self.asked.setdefault(id(module), []).append(len(arguments[0].label))

    def on_train_batch_start(self, *_):
        self.training = True

    def on_train_batch_end(self, *_):
        self.training = False


def test_members_that_name_one_checkpoint_share_one_teacher_that_is_asked_once_per_step(fit, checkpoint):
    system = ensemble(matching(stored(checkpoint)), hinting(stored(checkpoint)), hinting(stored(checkpoint), "layer3"))
    assert len({id(member.teacher) for member in system.methods} | {id(system.teacher)}) == 1
    assert system.teacher.taps.layers == ("layer2", "layer3")
    questions = Questions(system)
    fit(system, some_data(), max_epochs=1, callbacks=[questions])
    ((_, sizes),) = questions.asked.items()
    assert sizes == [60, 60, 60, 60, 30]  # 3 x (20, 20, 20, 20, 10) images
    assert system.trainer.callback_metrics["train/member2_hint_loss"] > 0


def test_one_teacher_object_for_all_is_shared_without_a_checkpoint_too(fit):
    teacher = FrozenTeacher(DigitsConv(widths=TEACHER))
    system = ensemble(matching(teacher), hinting(teacher), hinting(teacher, "layer3"))
    assert system.teacher is teacher
    fit(system, max_epochs=1, limit_train_batches=2)
    assert len(list(system.methods[1].regressors)) == 1


def test_one_teacher_object_for_some_answers_each_with_its_layers(fit):
    teacher = FrozenTeacher(DigitsConv(widths=TEACHER))
    system = ensemble(hinting(teacher), hinting(teacher, "layer3"), independent())
    assert system.teacher is None
    fit(system, max_epochs=1, limit_train_batches=2)


def test_members_may_have_different_teachers_and_each_answers_its_own_pupil(fit, checkpoint, sixty_four):
    other = FrozenTeacher(DigitsConv(widths=(2, 3, 4)))
    system = ensemble(matching(stored(checkpoint)), matching(other), independent())
    assert system.teacher is None
    fit(system, max_epochs=1, limit_train_batches=1)
    batch = sixty_four._replace(**{name: getattr(sixty_four, name)[:63] for name in sixty_four._fields})
    answers = system.ask_teacher(batch).members
    for answer, network, mine in (
        (answers[0], system.methods[0].teacher.network, batch.image[:21]),
        (answers[1], other.network, batch.image[21:42]),
    ):  # equal up to the rounding of folded batch norms
        torch.testing.assert_close(answer.logits, network(mine), rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", ["recipe", "checkpoint", "network"])
def test_teachers_that_differ_are_not_shared(checkpoint, tmp_path, change):
    one, other = stored(checkpoint), stored(checkpoint)
    if change == "recipe":
        other.recipe = "configs/digits/teacher.yaml"
    elif change == "checkpoint":
        other.checkpoint = str(tmp_path / "other.safetensors")
    else:
        other = FrozenTeacher(DigitsConv(), checkpoint=checkpoint)
    system = ensemble(matching(one), matching(other))
    assert system.teacher is None
    assert system.methods[0].teacher is not system.methods[1].teacher


def test_a_teacher_ensemble_for_a_member_works(fit):
    teacher = TeacherEnsemble([FrozenTeacher(DigitsConv()), FrozenTeacher(DigitsConv())])
    system = ensemble(matching(teacher, temperature=3.0), independent())
    assert teacher.temperature == 3.0
    fit(system, max_epochs=1, limit_train_batches=2)


def test_a_mean_teacher_follows_its_own_member_and_is_saved(fit):
    system = ensemble(matching(EMATeacher(0.9)), matching(EMATeacher(0.0)))
    fit(system, max_epochs=1)
    first, second = (member.teacher for member in system.methods)
    assert (first.steps, second.steps) == (9, 9)
    assert digest(second.network) == digest(system.methods[1].student)  # decay 0: the student of now
    assert digest(first.network) != digest(system.methods[0].student)
    saved = {name.split("teacher.")[1].split(".")[0] for name in system.state_dict() if "teacher." in name}
    assert saved == {"network", "_extra_state"}


def test_a_missing_teacher_is_told_once_per_member_in_test_and_stops_fit(fit, tmp_path, caplog):
    gone = str(tmp_path / "gone.safetensors")
    with pytest.raises(IntegrityError, match=r"gone\.safetensors does not exist"):
        fit(ensemble(matching(stored(gone)), matching(stored(gone))))
    system = ensemble(independent(), independent())
    trainer = fit(system, max_epochs=0)
    without = ensemble(matching(stored(gone)), matching(stored(gone)))
    with caplog.at_level(logging.WARNING):
        (metrics,) = trainer.test(without, datamodule=trainer.datamodule, verbose=False)
    assert "tested without its teacher" in caplog.text
    assert not [name for name in metrics if name.startswith("teacher/")]


# -- checkpoints ----------------------------------------------------------------------------------------------


def test_the_exported_student_is_the_ensemble_of_bare_networks(fit, tmp_path, sixty_four):
    system = ensemble(hinting(), independent())
    fit(system, max_epochs=1)
    save_weights(system.student, tmp_path / "student.safetensors", {})
    torch.save({"state_dict": system.state_dict()}, tmp_path / "last.ckpt")
    assert not [name for name in system.state_dict() if ".student." in name]  # only as networks of the ensemble
    for path in ("student.safetensors", "last.ckpt"):
        other = ensemble(hinting(), independent())
        load_weights(other.student, tmp_path / path)
        assert other.eval()(sixty_four.image).equal(system.eval()(sixty_four.image))
        assert digest(other.methods[0].student) == digest(system.methods[0].student)  # the same objects


# -- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_members_are_refused(count):
    with pytest.raises(UsageError, match=rf"SubStudentEnsemble got {count} member\(s\); list two or more"):
        ensemble(*(independent() for _ in range(count)))


def test_an_ensemble_of_ensembles_is_refused():
    with pytest.raises(UsageError, match="a member is an ensemble itself; list its members in its place"):
        ensemble(ensemble(independent(), independent()), independent())


def test_a_member_with_other_classes_is_refused_before_training(fit):
    with pytest.raises(UsageError, match="returns 7 logits but the data has 10 classes"):
        fit(ensemble(independent(), independent(num_classes=7)))


def sgd(lr):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-4)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ({"optimizer": sgd(0.05)}, False),  # the default, as the command line builds it anew
        ({"optimizer": sgd(0.1)}, True),
        ({"optimizer": torch.optim.Adam}, True),
        ({"lr_scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1)}, True),
        ({"seed": 3}, True),
    ],
)
def test_what_a_member_sets_in_vain_is_said(member, said, caplog):
    SubStudentEnsemble([IndependentStudent(student=DigitsConv(), **member), independent()])
    assert ("members[0] has an optimizer" in caplog.text) == said
    assert "members[1]" not in caplog.text


def test_an_optimizer_of_another_class_with_the_same_numbers_is_not_the_default(caplog):
    class Nesterov(torch.optim.SGD):
        pass

    def optimizer(parameters):
        return Nesterov(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)

    SubStudentEnsemble([IndependentStudent(student=DigitsConv(), optimizer=optimizer), independent()])
    assert "members[0] has an optimizer" in caplog.text
