"""Hints: the regressor's life, the hook by hand, and FitNet's two stages."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.methods import FitNet, HintTransfer
from kdlab.models import DigitsConv
from kdlab.models.adapters import HintRegressor
from kdlab.teachers import FrozenTeacher
from kdlab.weights import digest, load_weights, save_weights

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals

REL = 1e-5  # float32


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01)


def hint(mine="layer2", theirs="layer2", widths=(4, 5, 7), **arguments):
    arguments = {"student": DigitsConv(), "optimizer": momentum, **arguments}
    teacher = FrozenTeacher(DigitsConv(widths=widths))
    return HintTransfer(teacher, student_layers=[mine], teacher_layers=[theirs], **arguments)


def fitnet(hint_epochs=1, **arguments):
    arguments = {"student": DigitsConv(), "optimizer": momentum, **arguments}
    teacher = FrozenTeacher(DigitsConv(widths=(4, 5, 7)))
    layers = {"student_layers": ["layer2"], "teacher_layers": ["layer2"]}
    return FitNet(teacher, hint_epochs=hint_epochs, **layers, **arguments)


class Doubling(nn.Module):
    """A regressor that can be computed by hand."""

    def forward(self, feature):
        return 2 * feature


# -- the hook -------------------------------------------------------------------------------------------------


def hooked(made_up, method):
    method.regressors.append(Doubling())
    student, teacher = made_up.maps
    return made_up.hook(method, {"layer2": student}, {"layer2": teacher})


def test_the_hint_is_100_times_the_mean_square_after_the_regressor(made_up):
    terms = hooked(made_up, hint())
    assert list(terms) == ["label", "hint"]
    student, teacher = made_up.maps
    assert terms["hint"] == pytest.approx(100 * ((2 * student - teacher) ** 2).mean(), rel=REL)
    assert terms["label"] == pytest.approx(made_up.cross_entropy, rel=REL)


def test_weights_of_hint_labels_and_logits_are_free(made_up):
    terms = hooked(made_up, hint(hint_weight=0.5, label_weight=2.0, logit_weight=3.0, temperature=2.0))
    student, teacher = made_up.maps
    assert terms["hint"] == pytest.approx(0.5 * ((2 * student - teacher) ** 2).mean(), rel=REL)
    assert terms["label"] == pytest.approx(2 * made_up.cross_entropy, rel=REL)
    assert terms["logit"] == pytest.approx(3 * made_up.divergence(2.0), rel=REL)


# -- the regressor --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "student_shape", "teacher_shape"),
    [("layer2", "layer2", (6, 4, 4), (5, 4, 4)), ("layer1", "layer3", (3, 8, 8), (7, 2, 2)),
     ("layer3", "layer2", (6, 2, 2), (5, 4, 4)), ("pool", "pool", (6,), (7,)), ("fc", "fc", (10,), (10,))],
)  # fmt: skip
def test_the_regressor_gets_its_shapes_from_the_networks(fit, mine, theirs, student_shape, teacher_shape):
    method = hint(mine, theirs)
    fit(method, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    (regressor,) = method.regressors
    assert isinstance(regressor, HintRegressor)
    assert regressor.student_shape == student_shape
    assert regressor.teacher_shape == teacher_shape


def test_the_regressor_is_built_before_the_optimizer_and_trained_by_it(fit):
    method, seen = hint(), {}

    class Look(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            held = [id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]]
            seen["held"] = {id(p) for p in method.regressors.parameters()} <= set(held)
            seen["all"] = sorted(held) == sorted(
                id(p) for part in (method.student, method.regressors) for p in part.parameters()
            )
            seen["before"] = digest(method.regressors)

    fit(method, callbacks=[Look()], max_epochs=1)
    assert seen["held"]
    assert seen["all"]
    assert digest(method.regressors) != seen["before"]


def test_the_regressor_starts_as_the_methods_seed_says(fit):
    starts = []
    for drawn_before, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(drawn_before)
        method = hint(seed=seed)
        fit(method, max_epochs=0)
        starts.append(digest(method.regressors))
    assert starts[0] == starts[1] != starts[2]


def test_a_second_fit_goes_on_with_the_same_regressor(fit):
    method = hint()
    fit(method, max_epochs=1)
    regressor, before = method.regressors[0], digest(method.regressors)
    fit(method, max_epochs=0)
    assert len(method.regressors) == 1
    assert method.regressors[0] is regressor
    assert digest(method.regressors) == before


def test_the_checkpoint_holds_the_regressor_and_the_exported_student_does_not(fit, tmp_path):
    method = hint()
    trainer = fit(method, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    names = {f"regressors.0.{name}" for name in method.regressors[0].state_dict()}
    assert {name for name in state if not name.startswith("student.")} == names
    save_weights(method.student, tmp_path / "student.safetensors", {})
    bare = DigitsConv()
    for path in ("student.safetensors", "last.ckpt"):
        load_weights(bare, tmp_path / path)
        assert digest(bare) == digest(method.student)


def test_validation_and_test_do_not_run_the_regressor(fit):
    method = hint()
    trainer = fit(method, max_epochs=1)
    method.regressors[0].register_forward_pre_hook(lambda *_: pytest.fail("the regressor ran"))
    trainer.validate(method, datamodule=trainer.datamodule, verbose=False)
    trainer.test(method, datamodule=trainer.datamodule, verbose=False)
    fresh = hint()
    trainer.test(fresh, datamodule=trainer.datamodule, verbose=False)
    assert not fresh.regressors  # only training needs them


def test_features_that_cannot_be_joined_are_refused_before_training(fit):
    with pytest.raises(UsageError, match="a hint cannot join features of these shapes: student 6x4x4, teacher 7"):
        fit(hint("layer2", "pool"))


def test_a_hint_resumes_exactly(resumes_exactly):
    resumes_exactly(hint, steps=[4, 13])


# -- FitNet ---------------------------------------------------------------------------------------------------


class Snapshots(pl.Callback):
    """The weights at the end of each epoch, and what the optimizer remembers after the first step of stage two."""

    def __init__(self):
        self.weights = []
        self.remembered = []

    def take(self, method):
        self.weights.append({name: p.detach().clone() for name, p in method.named_parameters()})

    def on_train_start(self, trainer, pl_module):
        self.take(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.take(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_):
        state = trainer.optimizers[0].state
        names = {name for name, p in pl_module.named_parameters() if p in state}
        gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        buffers = {name: state[p].get("momentum_buffer") for name, p in pl_module.named_parameters() if p in state}
        if trainer.global_step % 9 == 1:  # the first step of an epoch
            self.remembered.append(
                (names, gradients, {name: b.clone() for name, b in buffers.items() if b is not None})
            )


GUIDED = ("student.layer1.", "student.layer2.", "regressors.")  # the guided layer, what is below it, the regressor


def test_stage_one_trains_up_to_the_guided_layer_and_stage_two_the_whole_student(fit):
    method, seen = fitnet(), Snapshots()
    fit(method, callbacks=[seen], max_epochs=2)
    start, one, two = seen.weights
    for name in start:
        if name.startswith("teacher."):
            assert start[name].equal(two[name])
            continue
        # weight decay alone would change a weight that an optimizer step reaches
        assert start[name].equal(one[name]) != name.startswith(GUIDED), name
        assert one[name].equal(two[name]) != name.startswith("student."), name


def test_the_optimizer_starts_afresh_in_stage_two(fit):
    method, seen = fitnet(), Snapshots()
    fit(method, callbacks=[seen], max_epochs=2)
    (one, *_), (two, gradients, buffers) = seen.remembered
    assert {name for name in one if not name.startswith("regressors.")} == {
        name for name, _ in method.named_parameters() if name.startswith(("student.layer1.", "student.layer2."))
    }
    assert two == {name for name, _ in method.named_parameters() if name.startswith("student.")}
    weights = seen.weights[1]
    for name, buffer in buffers.items():  # SGD's first step: momentum is the gradient, with weight decay, and no past
        assert buffer.allclose(gradients[name] + 0.01 * weights[name], rtol=1e-6, atol=1e-9), name


def test_only_the_terms_of_the_stage_are_computed_and_logged(fit):
    method, terms = fitnet(hint_epochs=2, label_weight=0.5, logit_weight=0.5), []

    class Terms(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            terms.append(tuple(sorted(pl_module.train_means.names)))

    fit(method, callbacks=[Terms()], max_epochs=4)
    one, two = ("accuracy", "hint_loss", "loss"), ("accuracy", "label_loss", "logit_loss", "loss")
    assert terms == [one] * 18 + [two] * 18


def test_the_terms_of_either_stage_by_hand(made_up):
    method = fitnet(hint_weight=3.0, temperature=2.0)
    method.regressors.append(Doubling())
    student, teacher = made_up.maps
    terms = made_up.hook(method, {"layer2": student}, {"layer2": teacher})
    assert terms == pytest.approx({"hint": 3 * ((2 * student - teacher) ** 2).mean()}, rel=REL)
    method._trainer = type("AtEpoch", (), {"current_epoch": 1})()
    terms = made_up.hook(method, {"layer2": student}, {"layer2": teacher})
    expected = {"label": 0.1 * made_up.cross_entropy, "logit": 0.9 * made_up.divergence(2.0)}
    assert terms == pytest.approx(expected, rel=REL)


def test_the_regressor_rests_in_stage_two(fit):
    method, seen = fitnet(), []

    class Look(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(digest(pl_module.regressors))  # with batch norm's statistics

    fit(method, callbacks=[Look()], max_epochs=3)
    assert seen[0] == seen[1] == seen[2]


def test_fitnet_resumes_exactly_before_at_and_after_the_switch(resumes_exactly):
    resumes_exactly(fitnet, steps=[5, 10, 13], max_epochs=2)  # and after 9, the end of stage one


def test_the_schedule_runs_through_both_stages(fit):
    method = fitnet(lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
    rates = []

    class Rates(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    fit(method, callbacks=[Rates()], max_epochs=3)
    np.testing.assert_allclose(rates, [0.05, 0.025, 0.0125])


@pytest.mark.parametrize("epochs", [0, -3])
def test_stage_one_has_an_epoch_at_least(epochs):
    with pytest.raises(UsageError, match=f"hint_epochs is {epochs}, but stage one lasts 1 epoch or more"):
        fitnet(hint_epochs=epochs)


@pytest.mark.parametrize("epochs", [2, 3])
def test_stage_two_must_fit_into_the_run(fit, epochs):
    with pytest.raises(
        UsageError, match=f"hint_epochs is {epochs}, but the run has 2 epoch.*max_epochs above {epochs}"
    ):
        fit(fitnet(hint_epochs=epochs), max_epochs=2)


def test_a_rehearsal_of_a_few_batches_may_end_in_stage_one(fit):
    assert fit(fitnet(hint_epochs=40), max_epochs=1, limit_train_batches=2).global_step == 2
    assert fit(fitnet(hint_epochs=40), fast_dev_run=1).global_step == 1


def test_a_stage_two_without_terms_is_refused():
    with pytest.raises(UsageError, match="both 0, so stage two has nothing to learn"):
        fitnet(label_weight=0.0, logit_weight=0.0)
