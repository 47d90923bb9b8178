"""What all losses share: a finite, non-negative float32 scalar, 0 at equality, whatever the type of the input."""

import copy

import pytest
import torch

import kdlab.losses
from kdlab.losses import (
    DIST,
    AttentionLoss,
    DecoupledKD,
    DynamicTemperature,
    FeatureLoss,
    HintLoss,
    LinearWarmup,
    LogitLoss,
    MultiLevelKD,
    PKTLoss,
    RelationalLoss,
    SimilarityLoss,
    SoftTargets,
    StandardizedSoftTargets,
)

LOGIT_LOSSES = {
    "SoftTargets": SoftTargets(4.0),
    "StandardizedSoftTargets": StandardizedSoftTargets(2.0),
    "StandardizedSoftTargets of a population": StandardizedSoftTargets(2.0, ddof=0),
    "DecoupledKD": DecoupledKD(),
    "DIST": DIST(),
    "MultiLevelKD": MultiLevelKD(),
    "DynamicTemperature": DynamicTemperature(),
    "LinearWarmup": LinearWarmup(DecoupledKD(), epochs=2),
}
FEATURE_LOSSES = {
    "HintLoss": HintLoss(),
    "AttentionLoss": AttentionLoss(),
    "SimilarityLoss": SimilarityLoss(),
    "RelationalLoss": RelationalLoss(),
    "PKTLoss": PKTLoss(),
}
LOSSES = LOGIT_LOSSES | FEATURE_LOSSES
MAPS = (6, 3, 4, 4)
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])

each_loss = pytest.mark.parametrize("name", LOSSES)
each_half = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def shape(name):
    return (6, 5) if name in LOGIT_LOSSES else MAPS


def call(name, student, teacher, labels=LABELS, losses=LOSSES):
    return losses[name](student, teacher, labels) if name in LOGIT_LOSSES else losses[name](student, teacher)


def test_every_public_loss_is_tested_here():
    public = {getattr(kdlab.losses, name) for name in kdlab.losses.__all__} - {LogitLoss, FeatureLoss}
    assert {type(loss) for loss in LOSSES.values()} == public
    assert all(isinstance(loss, LogitLoss) for loss in LOGIT_LOSSES.values())
    assert all(isinstance(loss, FeatureLoss) for loss in FEATURE_LOSSES.values())


@each_loss
def test_a_loss_is_a_positive_scalar_without_parameters_or_state(draw, name):
    loss = call(name, draw(*shape(name), seed=1), draw(*shape(name), seed=2))
    assert loss.shape == ()
    assert loss > 0
    assert not list(LOSSES[name].parameters())
    assert LOSSES[name].state_dict() == {}


@each_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_loss_is_zero_without_gradient_for_equal_inputs(draw, name, dtype):
    equal = draw(*shape(name), dtype=dtype).requires_grad_()
    loss = call(name, equal, equal.detach().clone())
    loss.backward()
    assert abs(loss.item()) < 1e-12
    # rounding of differences of probabilities, times T^2 or weights of up to 50; PKT's eps moves its minimum a little
    assert equal.grad.abs().max() < max(1e3 * torch.finfo(dtype).eps, 1e-8)


@each_loss
def test_a_loss_of_float64_is_float64(draw, name):
    student, teacher = draw(*shape(name), seed=1), draw(*shape(name), seed=2)
    loss = call(name, student, teacher)
    assert loss.dtype == torch.float64
    # and not float32 in between
    assert loss.item() != call(name, student.float().double(), teacher.float().double()).item()
    assert call(name, student.float(), teacher.float()).item() == pytest.approx(loss.item(), rel=1e-4)


@each_loss
@each_half
def test_a_loss_of_half_precision_is_that_of_the_same_numbers_in_float32(draw, name, dtype):
    student, teacher = draw(*shape(name), seed=1, dtype=dtype), draw(*shape(name), seed=2, dtype=dtype)
    loss = call(name, student, teacher)
    assert loss.dtype == torch.float32
    assert loss.equal(call(name, student.float(), teacher.float()))


@each_loss
@each_half
def test_a_loss_is_the_same_under_autocast(draw, name, dtype):
    student, teacher = (draw(*shape(name), seed=seed, dtype=torch.float32).requires_grad_() for seed in (1, 2))
    (expected,) = torch.autograd.grad(call(name, student, teacher), student)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype  # autocast is at work
        loss = call(name, student, teacher)
    assert loss.equal(call(name, student, teacher))
    assert torch.autograd.grad(loss, student)[0].equal(expected)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1e-2, 1.0, 100.0, 1e4])
def test_value_and_gradient_are_finite_at_every_scale(draw, name, dtype, scale):
    student = draw(*shape(name), seed=1, scale=scale, dtype=dtype).requires_grad_()
    teacher = draw(*shape(name), seed=2, scale=scale, dtype=dtype)
    loss = call(name, student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    assert student.grad.dtype == dtype
    assert torch.isfinite(student.grad).all()


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("student_value", [0.0, 0.1, None])
@pytest.mark.parametrize("teacher_value", [0.0, 0.1, None])
def test_inputs_that_do_not_vary_give_finite_values_and_gradients(draw, name, dtype, student_value, teacher_value):
    student, teacher = draw(*shape(name), seed=1, dtype=dtype), draw(*shape(name), seed=2, dtype=dtype)
    if student_value is not None:
        student.fill_(student_value)
    if teacher_value is not None:
        teacher.fill_(teacher_value)
    student.requires_grad_()
    loss = call(name, student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > -1e-6  # the sum of PKT's logarithms is rounded
    assert student.grad.abs().max() < 100  # also no gradient of 1 / eps


@pytest.mark.parametrize("name", LOGIT_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_logits_of_exact_one_hot_probabilities_give_finite_values_and_gradients(name, dtype):
    answers = torch.tensor([0, 1, 2, 3, 3, 3])
    teacher = (3e4 * torch.eye(5)[answers]).to(dtype)
    student = (3e4 * torch.eye(5)[answers.flip(0)]).to(dtype).requires_grad_()
    loss = call(name, student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    assert torch.isfinite(student.grad).all()


@each_loss
def test_the_order_of_samples_does_not_matter(draw, name):
    student, teacher = draw(*shape(name), seed=1), draw(*shape(name), seed=2)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = call(name, student[order], teacher[order], LABELS[order])
    assert shuffled.item() == pytest.approx(call(name, student, teacher).item(), rel=1e-12)


@each_loss
def test_every_sample_of_the_student_gets_a_gradient(draw, name):
    student, teacher = draw(*shape(name), seed=1).requires_grad_(), draw(*shape(name), seed=2)
    call(name, student, teacher).backward()
    assert (student.grad.flatten(1).abs().sum(dim=1) > 0).all()


@each_loss
def test_inputs_are_left_as_they_are(draw, name):
    student, teacher = draw(*shape(name), seed=1), draw(*shape(name), seed=2)
    call(name, student, teacher)
    assert student.equal(draw(*shape(name), seed=1))
    assert teacher.equal(draw(*shape(name), seed=2))


@each_loss
def test_a_copy_of_a_loss_is_the_same_loss(draw, name):
    student, teacher = draw(*shape(name), seed=1), draw(*shape(name), seed=2)
    copied = {name: copy.deepcopy(LOSSES[name])}
    assert call(name, student, teacher, losses=copied).equal(call(name, student, teacher))
    assert repr(copied[name]) == repr(LOSSES[name])


@pytest.mark.parametrize("name", [name for name in FEATURE_LOSSES if name != "AttentionLoss"])
def test_features_may_be_vectors(draw, name):
    assert call(name, draw(6, 7, seed=1), draw(6, 7, seed=2)) > 0


@pytest.mark.parametrize("name", [name for name in FEATURE_LOSSES if name != "HintLoss"])
def test_features_of_student_and_teacher_may_differ_in_size(draw, name):
    assert call(name, draw(6, 7, 4, 4, seed=1), draw(6, 3, 2, 2, seed=2)) > 0
