"""Mutual learning: the hook by hand, who gets which gradient, and peers in checkpoints."""

import numpy as np
import pytest
import torch

from kdlab.errors import UsageError
from kdlab.methods import MutualLearning
from kdlab.models import DigitsConv
from kdlab.types import Batch, Outputs
from kdlab.weights import digest

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and log intervals

REL = 1e-5  # float32


def mutual(peers=1, **arguments):
    peers = [DigitsConv(widths=(2 + number, 4, 5)) for number in range(peers)]
    return MutualLearning(peers, **{"student": DigitsConv(), **arguments})


def answers(members, label, logits=None):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(members, 4, 10)) if logits is None else logits
    tensors = [torch.tensor(answer, dtype=torch.float32, requires_grad=True) for answer in logits]
    index = torch.arange(4)
    batch = Batch(torch.zeros(4, 1, 8, 8), torch.tensor(label), index, index)
    return logits, tensors, Outputs(tensors[0], members=tuple(map(Outputs, tensors))), batch


def softmax(logits):
    e = np.exp(logits)
    return e / e.sum(axis=-1, keepdims=True)


LABEL = [3, 0, 9, 3]


@pytest.mark.parametrize("members", [2, 3])
def test_everybody_learns_from_labels_and_from_the_mean_divergence_to_the_others(members):
    logits, _, student, batch = answers(members, LABEL)
    terms = mutual(members - 1, temperature=2.0, label_weight=3.0, mutual_weight=5.0).losses(student, None, batch)
    assert list(terms) == ["label", "mutual"]
    cross_entropy = -np.log(softmax(logits)[:, range(4), LABEL]).mean(axis=1).sum()
    assert terms["label"].item() == pytest.approx(3 * cross_entropy, rel=REL)
    soft, divergence = softmax(logits / 2), 0.0
    for mine in range(members):
        for other in range(members):
            if other != mine:
                each = 4 * (soft[other] * np.log(soft[other] / soft[mine])).sum(axis=1).mean()
                divergence += each / (members - 1)
    assert terms["mutual"].item() == pytest.approx(5 * divergence, rel=REL)


def test_by_default_temperature_and_weights_are_one():
    logits, _, student, batch = answers(2, LABEL)
    p, q = softmax(logits)
    expected = (p * np.log(p / q) + q * np.log(q / p)).sum(axis=1).mean()
    terms = mutual().losses(student, None, batch)
    assert terms["mutual"].item() == pytest.approx(expected, rel=REL)
    assert terms["label"].item() == pytest.approx(-np.log(softmax(logits)[:, range(4), LABEL]).mean(1).sum(), rel=REL)


def test_the_gradient_of_a_network_is_its_own_and_nobody_bends_towards_its_pupil():
    logits, tensors, student, batch = answers(3, LABEL)
    mutual(2, label_weight=0.0).losses(student, None, batch)["mutual"].backward()
    p = softmax(logits)
    for mine in range(3):
        # T = 1: the mean over the others of (p_mine - p_other) / B; with undetached others it would be more
        expected = sum(p[mine] - p[other] for other in range(3) if other != mine) / 2 / 4
        np.testing.assert_allclose(tensors[mine].grad.numpy(), expected, atol=1e-7)


def test_no_network_trains_another(sixty_four):
    method = mutual(1)
    student = method.ask_student(sixty_four)
    own = student._replace(members=(student.members[0], Outputs(student.members[1].logits.detach())))
    sum(method.losses(own, None, sixty_four).values()).backward()
    assert all(p.grad is None for p in method.peers.parameters())
    assert all(p.grad is not None for p in method.student.parameters())


def test_half_precision_logits_give_float32_terms():
    _, tensors, _, batch = answers(2, LABEL)
    members = tuple(Outputs(tensor.half()) for tensor in tensors)
    terms = mutual().losses(Outputs(members[0].logits, members=members), None, batch)
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_all_networks_are_trained_and_the_first_is_the_student(fit):
    method = mutual(2)
    before = [digest(network) for network in (method.student, *method.peers)]
    trainer = fit(method, max_epochs=1)
    assert all(digest(network) != old for network, old in zip((method.student, *method.peers), before, strict=True))
    accuracies = {name: float(value) for name, value in trainer.callback_metrics.items()}
    images = trainer.datamodule.val_split.images.float()
    view = (images / 255 - trainer.datamodule.mean[0]) / trainer.datamodule.std[0]
    labels = trainer.datamodule.val_split.labels
    for name, network in zip(("student", "peer1", "peer2"), (method.student, *method.peers), strict=True):
        right = (network.eval()(view).argmax(dim=-1) == labels).double().mean().item()
        assert accuracies[f"val/{name}_accuracy"] == pytest.approx(right, abs=1e-6)  # logged as float32
    assert accuracies["val/accuracy"] == pytest.approx(accuracies["val/student_accuracy"], abs=1e-6)
    assert method(view).equal(method.student(view))


def test_peers_are_saved_and_resumed_exactly(resumes_exactly):
    state, _ = resumes_exactly(lambda: mutual(2), steps=[4, 13])
    assert {name.split(".")[0] for name in state} == {"student", "peers"}
    assert sum(name.startswith("peers.1.") for name in state) == len(DigitsConv().state_dict())


def test_no_peers_are_refused():
    with pytest.raises(UsageError, match="peers is empty, but learning from each other takes two"):
        mutual(0)


def test_weights_that_are_both_zero_are_refused():
    with pytest.raises(UsageError, match="label_weight and mutual_weight are both 0, so there is nothing to learn"):
        mutual(2, label_weight=0, mutual_weight=0)


@pytest.mark.parametrize("name", ["label_weight", "mutual_weight"])
def test_a_negative_weight_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} is -1, but it must be"):
        mutual(**{name: -1.0})


def test_a_peer_that_does_not_fit_the_data_is_refused(fit):
    method = MutualLearning([DigitsConv(num_classes=7)], student=DigitsConv())
    with pytest.raises(UsageError, match=r"returns 7 logits but the data has 10 classes; set model\.peers"):
        fit(method)
