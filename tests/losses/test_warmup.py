"""The factor of a warm-up is min(epoch / epochs, 1), epochs counted from 1."""

import pytest
import torch

from kdlab.errors import UsageError
from kdlab.losses import DecoupledKD, LinearWarmup, MultiLevelKD, SoftTargets


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.05), (1, 0.1), (9, 0.5), (18, 0.95), (19, 1), (20, 1), (239, 1)])
def test_the_factor_grows_linearly_and_stays_at_one(draw, epoch, factor):
    student, teacher = draw(4, 3, seed=1), draw(4, 3, seed=2)
    loss = LinearWarmup(SoftTargets(4.0), epochs=20)
    loss.set_epoch(epoch)
    assert loss(student, teacher).item() == pytest.approx(factor * SoftTargets(4.0)(student, teacher).item(), rel=1e-12)


def test_before_it_hears_of_an_epoch_it_is_in_the_first(draw):
    student, teacher = draw(4, 3, seed=1), draw(4, 3, seed=2)
    loss = LinearWarmup(SoftTargets(4.0), epochs=4)
    assert loss(student, teacher).item() == pytest.approx(SoftTargets(4.0)(student, teacher).item() / 4)


def test_labels_and_epochs_reach_the_inner_loss(draw):
    student, teacher, labels = draw(4, 3, seed=1), draw(4, 3, seed=2), torch.tensor([0, 1, 2, 0])
    loss = LinearWarmup(LinearWarmup(DecoupledKD(), epochs=4), epochs=2)
    loss.set_epoch(0)
    expected = DecoupledKD()(student, teacher, labels).item() / 8
    assert loss(student, teacher, labels).item() == pytest.approx(expected)
    loss.set_epoch(3)
    assert loss(student, teacher, labels).item() == pytest.approx(8 * expected)


def test_the_factor_is_a_function_of_the_epoch_and_in_no_checkpoint():
    loss = LinearWarmup(SoftTargets(), epochs=4)
    loss.set_epoch(2)
    assert loss.state_dict() == {}
    loss.set_epoch(0)  # nothing is left of what it heard before
    assert loss.factor == 0.25


def test_the_temperature_is_that_of_the_inner_loss_and_can_be_set(draw):
    student, teacher = draw(4, 3, seed=1), draw(4, 3, seed=2)
    loss = LinearWarmup(SoftTargets(3.0), epochs=1)
    assert loss.temperature == 3.0
    loss.temperature = 5.0
    assert loss(student, teacher).equal(SoftTargets(5.0)(student, teacher))
    assert LinearWarmup(MultiLevelKD()).temperature is None  # it has several


def test_losses_without_a_schedule_do_not_mind_the_epoch(draw):
    student, teacher = draw(4, 3, seed=1), draw(4, 3, seed=2)
    loss = SoftTargets()
    before = loss(student, teacher)
    loss.set_epoch(7)
    assert loss(student, teacher).equal(before)


@pytest.mark.parametrize("epochs", [0, -3])
def test_a_warm_up_without_epochs_is_an_error(epochs):
    with pytest.raises(UsageError, match=f"epochs is {epochs}, .*1 epoch or more; leave LinearWarmup out"):
        LinearWarmup(SoftTargets(), epochs=epochs)


def test_settings_are_shown():
    assert "epochs=20" in repr(LinearWarmup(SoftTargets(3.0)))
    assert "SoftTargets(temperature=3)" in repr(LinearWarmup(SoftTargets(3.0)))
