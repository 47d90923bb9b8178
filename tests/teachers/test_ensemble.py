"""Ensembles of teachers against the mean of softened probabilities in float64."""

import copy

import numpy as np
import pytest
import torch

from kdlab.errors import IntegrityError, UsageError
from kdlab.losses import DIST, LinearWarmup, MultiLevelKD, SoftTargets
from kdlab.methods import LogitMatching
from kdlab.models import DigitsConv
from kdlab.teachers import EMATeacher, FrozenTeacher, TeacherEnsemble
from kdlab.weights import digest, save_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals


def teachers(count=3):
    members = []
    for number in range(count):
        network = DigitsConv(widths=(3, 4, 5 + number))
        network.fc.weight.data *= 10  # opinions that differ
        members.append(FrozenTeacher(network))
    return members


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def member_logits(ensemble, batch):
    return np.stack([teacher.network(batch.image).double().numpy() for teacher in ensemble.teachers])


@pytest.mark.parametrize("temperature", [1.0, 2.0, 7.5])
def test_a_loss_of_temperature_t_sees_the_mean_of_the_softened_probabilities(sixty_four, temperature):
    ensemble = TeacherEnsemble(teachers())
    ensemble.soften(temperature)
    seen = softmax(ensemble.teach(sixty_four).logits.double().numpy() / temperature)
    expected = softmax(member_logits(ensemble, sixty_four) / temperature).mean(axis=0)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-7)  # float32
    at_one = softmax(member_logits(ensemble, sixty_four)).mean(axis=0)
    assert temperature == 1 or abs(softmax(np.log(at_one) / temperature) - expected).max() > 1e-3


def test_at_temperature_one_the_answers_are_logarithms_of_mean_probabilities(sixty_four):
    ensemble = TeacherEnsemble(teachers())
    expected = np.log(softmax(member_logits(ensemble, sixty_four)).mean(axis=0))
    np.testing.assert_allclose(ensemble(sixty_four).logits.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_mean_logits_are_the_mean_of_the_logits_at_any_temperature(sixty_four, temperature):
    ensemble = TeacherEnsemble(teachers(), average="logits")
    ensemble.soften(temperature)
    expected = member_logits(ensemble, sixty_four).mean(axis=0)
    np.testing.assert_allclose(ensemble(sixty_four).logits.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_the_members_stay_visible(sixty_four):
    ensemble = TeacherEnsemble(teachers())
    outputs = ensemble(sixty_four)
    assert len(outputs.members) == 3
    for member, teacher in zip(outputs.members, ensemble.teachers, strict=True):
        assert member.logits.equal(teacher(sixty_four).logits)


def test_equal_teachers_are_one_teacher(sixty_four):
    one = teachers(1)[0]
    ensemble = TeacherEnsemble([one, copy.deepcopy(one)])
    ensemble.soften(3.0)
    seen, alone = ensemble.teach(sixty_four).logits / 3, one(sixty_four).logits / 3
    assert seen.softmax(dim=-1).allclose(alone.softmax(dim=-1), atol=1e-6)


def test_confident_answers_stay_finite(sixty_four):
    members = teachers(2)
    for member in members:
        member.network.fc.weight.data *= 1e4
    logits = TeacherEnsemble(members)(sixty_four).logits
    assert torch.isfinite(logits).all()


def test_half_precision_members_are_averaged_in_float32(sixty_four):
    ensemble = TeacherEnsemble(teachers()).half()
    outputs = ensemble(sixty_four._replace(image=sixty_four.image.half()))
    assert outputs.members[0].logits.dtype == torch.float16
    assert outputs.logits.dtype == torch.float32


# -- the temperature ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({}, 4.0), ({"temperature": 2.5}, 2.5), ({"logit_loss": SoftTargets(3.0)}, 3.0),
     ({"logit_loss": LinearWarmup(DIST())}, DIST().temperature), ({"logit_loss": MultiLevelKD()}, 1.0)],
)  # fmt: skip
def test_the_temperature_is_that_of_the_methods_loss(arguments, expected):
    ensemble = TeacherEnsemble(teachers())
    LogitMatching(ensemble, student=DigitsConv(), **arguments)
    assert ensemble.temperature == expected


def test_a_given_temperature_is_kept(sixty_four):
    ensemble = TeacherEnsemble(teachers(), temperature=2.0)
    LogitMatching(ensemble, student=DigitsConv(), temperature=5.0)
    assert ensemble.temperature == 2.0


def test_an_ensemble_among_the_teachers_averages_at_the_same_temperature(sixty_four):
    members = teachers(4)
    nested = TeacherEnsemble([TeacherEnsemble(members[:2]), TeacherEnsemble(members[2:])])
    flat = TeacherEnsemble(members)
    for ensemble in (nested, flat):
        ensemble.soften(5.0)
    assert nested.teach(sixty_four).logits.allclose(
        flat.teach(sixty_four).logits, atol=1e-4
    )  # float32, at temperature 5


def test_an_ensemble_teaches_what_its_mean_teaches(fit, sixty_four):
    ensemble = TeacherEnsemble(teachers())
    method = LogitMatching(ensemble, student=DigitsConv(), temperature=2.0, alpha=0.0)
    term = method.losses(method.ask_student(sixty_four), method.ask_teacher(sixty_four), sixty_four)["logit"]
    p = softmax(member_logits(ensemble, sixty_four) / 2).mean(axis=0)
    q = softmax(method.ask_student(sixty_four).logits.detach().double().numpy() / 2)
    assert term.item() == pytest.approx(4 * (p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4)


# -- life -----------------------------------------------------------------------------------------------------


def stored(tmp_path, number):
    path = tmp_path / f"teacher{number}.safetensors"
    network = DigitsConv()
    save_weights(network, path, {"epoch": number})
    return FrozenTeacher(DigitsConv(), checkpoint=str(path)), network.eval()


def test_loading_loads_all_and_it_is_ready_when_all_are(tmp_path, sixty_four):
    (one, first), (other, second) = stored(tmp_path, 1), stored(tmp_path, 2)
    ensemble = TeacherEnsemble([one, other])
    assert not ensemble.ready
    one.load()
    assert not ensemble.ready
    ensemble.load()
    assert ensemble.ready
    members = ensemble(sixty_four).members
    assert members[0].logits.equal(first(sixty_four.image))
    assert members[1].logits.equal(second(sixty_four.image))


def test_a_missing_checkpoint_of_one_teacher_is_named(tmp_path):
    one, _ = stored(tmp_path, 1)
    ensemble = TeacherEnsemble([one, FrozenTeacher(DigitsConv(), checkpoint=str(tmp_path / "gone.safetensors"))])
    with pytest.raises(IntegrityError, match=r"teacher: .*gone\.safetensors does not exist"):
        ensemble.load()


def test_training_leaves_every_teacher_alone_and_out_of_the_checkpoint(fit):
    ensemble = TeacherEnsemble(teachers())
    before = digest(ensemble)
    method = LogitMatching(ensemble, student=DigitsConv())
    fit(method)
    assert digest(ensemble) == before
    assert all(name.startswith("student.") for name in method.state_dict())
    assert not any(part.training for part in ensemble.modules())


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_teachers_are_refused(count):
    with pytest.raises(UsageError, match=rf"TeacherEnsemble got {count} teacher\(s\); list two or more"):
        TeacherEnsemble(teachers(count))


def test_a_teacher_that_learns_is_refused():
    with pytest.raises(UsageError, match="learns along with the student cannot be part"):
        TeacherEnsemble([*teachers(1), EMATeacher()])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(UsageError, match=r"temperature is .*must be a positive number"):
        TeacherEnsemble(teachers(2), temperature=temperature)


def test_in_evaluation_the_answer_does_not_depend_on_the_temperature_of_the_loss(sixty_four):
    ensemble = TeacherEnsemble([FrozenTeacher(DigitsConv()), FrozenTeacher(DigitsConv())])
    before = ensemble(sixty_four).logits
    ensemble.soften(7.0)
    assert ensemble(sixty_four).logits.equal(before)
    assert not ensemble.teach(sixty_four).logits.allclose(before)


def test_ensembles_are_equal_when_their_teachers_and_the_way_of_averaging_are(tmp_path):
    def ensemble(*names, **options):
        found = []
        for name in names:
            path = tmp_path / name
            if not path.exists():
                save_weights(DigitsConv(), path, {})
            found.append(FrozenTeacher(DigitsConv(), str(path)))
        return TeacherEnsemble(found, **options)

    one = ensemble("a", "b")
    assert one.equals(one)
    assert one.equals(ensemble("a", "b"))
    assert not one.equals(ensemble("a", "c"))
    assert not one.equals(ensemble("a", "b", "b"))
    assert not one.equals(ensemble("a", "b", average="logits"))
    assert not one.equals(ensemble("a", "b", temperature=3.0))
    assert not one.equals(one.teachers[0])
