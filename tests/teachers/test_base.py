"""What every teacher says of itself."""

import pytest
from torch import nn

from kdlab.errors import UsageError
from kdlab.models import DigitsConv
from kdlab.teachers import CachedTeacher, EMATeacher, FrozenTeacher, Teacher, TeacherEnsemble
from kdlab.types import Outputs


class Own(Teacher):
    """A user's own, which names its network and nothing else."""

    def __init__(self):
        super().__init__()
        self.network = DigitsConv()

    def forward(self, batch):
        return Outputs(self.network(batch.image))


def test_a_teacher_of_a_user_says_which_network_answers():
    teacher = Own()
    assert isinstance(teacher.network, nn.Module)
    assert teacher.answering is teacher.network
    assert teacher.asked_networks() == [(teacher.network, 1.0)]
    assert all(name.startswith("network.") for name in teacher.state_dict())
    assert not teacher.untrained


def test_a_teacher_of_several_networks_answers_as_a_whole():
    ensemble = TeacherEnsemble([FrozenTeacher(DigitsConv()), FrozenTeacher(DigitsConv())])
    assert ensemble.network is None
    assert ensemble.answering is ensemble
    assert EMATeacher().network is None  # yet


@pytest.mark.parametrize("wrap", [lambda teacher: teacher, CachedTeacher, lambda t: CachedTeacher(CachedTeacher(t))])
def test_the_innermost_of_a_remembered_teacher_is_the_one_that_answers(wrap):
    teacher = FrozenTeacher(DigitsConv())
    assert wrap(teacher).innermost is teacher
    assert wrap(teacher).answering is teacher.network


class Delegating(Teacher):
    """A user's own, which has another teacher answer for it."""

    def __init__(self, teacher):
        super().__init__()
        self.inner = teacher

    def forward(self, batch):
        return self.inner(batch)


class WithProperty(Delegating):
    """The same, which says whose network it is."""

    @property
    def network(self):
        return self.inner.network


@pytest.mark.parametrize("kind", [Delegating, WithProperty])
def test_a_teacher_around_another_one_asks_that_ones_network(kind):
    inner = FrozenTeacher(DigitsConv())
    assert kind(inner).asked_networks() == [(inner.network, 1.0)]


def test_a_teacher_that_names_no_network_says_what_to_do():
    class Nameless(Teacher):
        def forward(self, batch):
            raise NotImplementedError

    with pytest.raises(UsageError, match=r"Nameless names no network; set self\.network, or override asked_networks"):
        Nameless().asked_networks()


def test_the_networks_of_a_teacher_are_found_with_the_share_that_they_were_asked():
    a, b = FrozenTeacher(DigitsConv()), FrozenTeacher(DigitsConv(widths=(8, 8, 8)))
    remembering = CachedTeacher(a)
    both = TeacherEnsemble([remembering, TeacherEnsemble([b, b])])
    assert both.asked_networks() == [(a.network, 1), (b.network, 1), (b.network, 1)]
    remembering.images_answered, remembering.images_computed = 8, 2
    assert both.asked_networks() == [(a.network, 0.25), (b.network, 1), (b.network, 1)]
    outer = CachedTeacher(both)
    outer.images_answered, outer.images_computed = 2, 1
    assert outer.asked_networks() == [(a.network, 0.125), (b.network, 0.5), (b.network, 0.5)]


@pytest.mark.parametrize("wrap", [CachedTeacher, lambda inner: TeacherEnsemble([FrozenTeacher(DigitsConv()), inner])])
def test_a_teacher_is_untrained_if_one_inside_it_is(wrap):
    inner = FrozenTeacher(DigitsConv(), "missing.safetensors")
    teacher = wrap(inner)
    assert not teacher.untrained
    inner.use_untrained()
    assert teacher.untrained
