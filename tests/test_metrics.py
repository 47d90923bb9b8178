"""Metrics against scikit-learn, numpy and plain loops.

Sums are float64: 1e-12 allows only for their order; 1e-6 where torchmetrics divides in float32.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from kdlab.analysis import Calibration, Fidelity
from kdlab.errors import UsageError
from kdlab.metrics import ECE_BINS, ClassificationMetrics, EpochMeans, FidelityMetrics, MemberMetrics, PerClassMetrics

RATIO = 1e-6  # torchmetrics divides counts in float32: 6e-8 relative


def answers(count=500, classes=10, seed=0, scale=2.0):
    """Logits that are right more often than not, and labels in which some classes are rare."""
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(count, generator=generator) ** 2 * classes).long()
    logits = scale * torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), label] += scale
    return logits, label


def measure(logits, label, classes=None, batches=1):
    metrics = ClassificationMetrics(classes or logits.shape[1])
    for part, part_label in zip(logits.tensor_split(batches), label.tensor_split(batches), strict=True):
        metrics.update(part, part_label)
    return {name: value.item() for name, value in metrics.compute().items()}


def ece_by_hand(probability, label, bins=15):
    """Guo et al. 2017: bins ((m - 1) / M, m / M], each weighted by its share of the samples."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == label
    error = 0.0
    for m in range(1, bins + 1):
        members = [i for i, c in enumerate(confidence) if (m - 1) / bins < c <= m / bins]
        if members:
            error += abs(right[members].mean() - confidence[members].mean()) * len(members) / len(label)
    return error


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("count", "classes"), [(500, 10), (37, 7), (1, 6)])
def test_the_metrics_agree_with_scikit_learn_and_a_plain_loop(count, classes):
    logits, label = answers(count, classes)
    measured = measure(logits, label)
    probability, truth = softmax(logits.double().numpy()), label.numpy()
    known = list(range(classes))
    assert measured["accuracy"] == pytest.approx(accuracy_score(truth, probability.argmax(axis=1)), rel=RATIO)
    assert measured["top5"] == pytest.approx(top_k_accuracy_score(truth, probability, k=5, labels=known), rel=RATIO)
    assert measured["nll"] == pytest.approx(log_loss(truth, probability, labels=known), rel=1e-12)
    assert measured["ece"] == pytest.approx(ece_by_hand(probability, truth), rel=RATIO, abs=1e-12)
    brier = ((probability - np.eye(classes)[truth]) ** 2).sum(axis=1).mean()
    assert measured["brier"] == pytest.approx(brier, rel=1e-12)
    assert measured["brier"] == pytest.approx(Calibration.from_logits(logits, label).brier, rel=1e-12)


def test_the_brier_score_of_a_coin_is_the_value_by_hand():
    # probabilities 1/2 and 1/2: (1/2)^2 + (1/2)^2
    assert measure(torch.zeros(3, 2), torch.tensor([0, 1, 1]))["brier"] == pytest.approx(0.5, rel=1e-12)


def test_the_calibration_error_uses_fifteen_bins():
    assert ECE_BINS == 15
    logits, _ = answers(300, 4, seed=1, scale=1.0)
    # labels drawn from the answers themselves: bins err to both sides, so that the number of bins matters
    label = logits.softmax(dim=-1).multinomial(1, generator=torch.Generator().manual_seed(0)).squeeze(1)
    probability = softmax(logits.double().numpy())
    by_bins = {bins: ece_by_hand(probability, label.numpy(), bins) for bins in (10, 15, 20)}
    assert measure(logits, label)["ece"] == pytest.approx(by_bins[15], rel=RATIO)
    assert abs(by_bins[15] - by_bins[10]) > 1e-3
    assert abs(by_bins[15] - by_bins[20]) > 1e-3


def test_the_calibration_error_of_two_samples_in_one_bin_is_the_value_by_hand():
    # both confidences 0.75, one right: |1/2 - 3/4|
    logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]])
    assert measure(logits, torch.tensor([0, 1]))["ece"] == pytest.approx(0.25, rel=RATIO)


def test_a_confidence_of_exactly_one_shares_the_last_bin():
    # confidences 1 (wrong) and 0.95 (right) are both in (14/15, 1]: |1/2 - 0.975|. In bins of their own they would
    # not compensate each other: 0.5 * 1 + 0.5 * 0.05 = 0.525
    logits = torch.tensor([[1000.0, 0.0], [math.log(19.0), 0.0]])
    assert measure(logits, torch.tensor([1, 0]))["ece"] == pytest.approx(0.475, rel=RATIO)


def test_top5_of_three_classes_is_top3():
    logits, label = answers(50, 3)
    assert measure(logits, label)["top5"] == 1.0


def test_a_perfect_predictor_has_accuracy_one_and_no_loss():
    label = torch.arange(40) % 10
    measured = measure(1000.0 * torch.nn.functional.one_hot(label, 10).float(), label)
    assert [measured[name] for name in ("accuracy", "top5", "nll", "brier")] == [1.0, 1.0, 0.0, 0.0]
    assert measured["ece"] == pytest.approx(0.0, abs=1e-6)  # float32


def test_a_constant_predictor_has_the_share_of_its_class_not_the_mean_over_classes():
    label = torch.tensor([0] * 7 + [1] * 2 + [2])
    logits = torch.tensor([[0.0, 1.0, 0.5]]).repeat(10, 1)
    measured = measure(logits, label)
    assert measured["accuracy"] == pytest.approx(0.2, rel=RATIO)
    confidence = math.e / (1 + math.e + math.sqrt(math.e))
    assert measured["ece"] == pytest.approx(confidence - 0.2, rel=RATIO)


def test_uniform_logits_have_the_entropy_of_the_classes_as_nll():
    assert measure(torch.zeros(20, 10), torch.arange(20) % 10)["nll"] == pytest.approx(math.log(10), rel=1e-12)


def test_logits_between_zero_and_one_are_not_taken_for_probabilities():
    logits, label = answers(80, 5)
    logits = logits.sub(logits.min()).div(logits.max() - logits.min())
    assert logits.min() == 0
    assert logits.max() == 1
    measured = measure(logits, label)
    probability = softmax(logits.double().numpy())
    assert measured["nll"] == pytest.approx(log_loss(label.numpy(), probability, labels=range(5)), rel=1e-12)
    assert measured["ece"] == pytest.approx(ece_by_hand(probability, label.numpy()), rel=RATIO)


@pytest.mark.parametrize("batches", [2, 7, 500])
def test_batches_do_not_change_the_metrics(batches):
    logits, label = answers()
    whole, split = measure(logits, label), measure(logits, label, batches=batches)
    assert split["accuracy"] == whole["accuracy"]
    assert split["top5"] == whole["top5"]
    # sums of 500 float64 numbers in another order
    assert split["nll"] == pytest.approx(whole["nll"], rel=1e-13)
    assert split["brier"] == pytest.approx(whole["brier"], rel=1e-13)
    assert split["ece"] == pytest.approx(whole["ece"], rel=1e-13)


def test_an_empty_batch_changes_nothing():
    logits, label = answers(20, 4)
    metrics, report = ClassificationMetrics(4), PerClassMetrics(4)
    for part in (slice(0, 0), slice(0, 12), slice(3, 3), slice(12, 20), slice(20, 20)):
        metrics.update(logits[part], label[part])
        report.update(logits[part], label[part])
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(measure(logits, label))
    assert sum(map(sum, report.compute()["confusion_matrix"])) == 20


def test_computing_starts_anew():
    metrics = ClassificationMetrics(4)
    metrics.update(*answers(20, 4))
    metrics.compute()
    metrics.update(*answers(30, 4, seed=2))
    assert {name: value.item() for name, value in metrics.compute().items()} == measure(*answers(30, 4, seed=2))


def test_a_logit_that_is_no_number_is_not_left_out_of_the_nll():
    logits, label = answers(20, 4)
    logits[3, 2] = math.nan
    assert math.isnan(measure(logits, label)["nll"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_logits_are_summed_in_full_precision(dtype):
    logits, label = answers(300, 5)
    logits = logits.to(dtype)
    expected = log_loss(label.numpy(), softmax(logits.double().numpy()), labels=range(5))
    assert measure(logits, label)["nll"] == pytest.approx(expected, rel=1e-12)


def test_metrics_are_no_part_of_a_checkpoint():
    metrics = ClassificationMetrics(4)
    metrics.update(*answers(20, 4))
    assert not metrics.state_dict()
    assert not PerClassMetrics(4).state_dict()


# -- by class -------------------------------------------------------------------------------------------------


def test_the_confusion_matrix_counts_true_classes_in_rows():
    report = PerClassMetrics(3)
    prediction, label = torch.tensor([0, 2, 2, 1]), torch.tensor([0, 0, 2, 2])
    report.update(torch.nn.functional.one_hot(prediction, 3).float(), label)
    assert report.compute()["confusion_matrix"] == [[1, 0, 1], [0, 0, 0], [0, 1, 1]]


def test_the_scores_by_class_agree_with_scikit_learn():
    logits, label = answers(200, 6)
    label[label == 4] = 3  # a class without samples
    report = PerClassMetrics(6)
    for part, part_label in zip(logits.split(33), label.split(33), strict=True):
        report.update(part, part_label)
    measured = report.compute()
    prediction, known = logits.argmax(dim=-1).numpy(), list(range(6))
    assert measured["confusion_matrix"] == confusion_matrix(label.numpy(), prediction, labels=known).tolist()
    scores = precision_recall_fscore_support(label.numpy(), prediction, labels=known, zero_division=0)
    for name, expected in zip(("precision", "recall", "f1"), scores[:3], strict=True):
        assert measured["per_class"][name] == pytest.approx(expected.tolist(), rel=RATIO)


def test_a_class_that_is_never_predicted_scores_zero_and_not_nan():
    report = PerClassMetrics(3)
    report.update(torch.tensor([[1.0, 0.0, 0.0]] * 4), torch.tensor([0, 0, 1, 1]))
    scores = report.compute()["per_class"]
    assert scores["precision"] == pytest.approx([0.5, 0, 0])
    assert scores["recall"] == pytest.approx([1, 0, 0])
    assert scores["f1"] == pytest.approx([2 / 3, 0, 0])


def test_computing_the_report_starts_anew():
    report = PerClassMetrics(4)
    report.update(*answers(20, 4))
    report.compute()
    report.update(*answers(7, 4))
    assert sum(map(sum, report.compute()["confusion_matrix"])) == 7


# -- student and teacher --------------------------------------------------------------------------------------


def pair(count=500, classes=10, seed=0):
    """Logits of a student and a teacher that often err alike, and labels; some logits are equal, one row is flat."""
    teacher, label = answers(count, classes, seed)
    student = teacher + torch.randn(count, classes, generator=torch.Generator().manual_seed(seed + 1))
    student[::7, 1] = student[::7, 0]
    student[3] = 0.25
    return student, teacher, label


def follow(student, teacher, label, parts=None):
    metrics = FidelityMetrics()
    for part in parts or [slice(None)]:
        metrics.update(student[part], teacher[part], label[part])
    return {name: value.item() for name, value in metrics.compute().items()}


def analysed(student, teacher, label):
    found = Fidelity.from_logits(student, teacher, label)
    return {
        "agreement": found.agreement, "teacher_kl": found.kl, "same_wrong_rate": found.same_wrong_rate,
        "spearman": found.spearman,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("count", "classes"), [(500, 10), (300, 4), (80, 100)])
def test_fidelity_is_that_of_the_analysis_on_the_same_logits(count, classes, dtype):
    student, teacher, label = pair(count, classes)
    student, teacher = student.to(dtype), teacher.to(dtype)
    expected = analysed(student, teacher, label)
    assert 0 < expected["same_wrong_rate"] < 1
    assert follow(student, teacher, label) == pytest.approx(expected, rel=1e-11)


def test_fidelity_of_three_samples_is_the_value_by_hand():
    teacher = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    student = torch.tensor([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0], [1.0, 1.0, 5.0]])
    measured = follow(student, teacher, torch.tensor([1, 2, 0]))
    assert measured["agreement"] == pytest.approx(2 / 3)
    assert measured["same_wrong_rate"] == pytest.approx(2 / 3)  # all three are answered wrongly by both
    # 1; ranks 2 3 1 against 3 2 1; ranks 1.5 1.5 3 against 1 2 3: deviations (-1/2 -1/2 1) and (-1 0 1)
    assert measured["spearman"] == pytest.approx((1 + 0.5 + 1.5 / math.sqrt(1.5 * 2)) / 3, rel=1e-12)


@pytest.mark.parametrize("batches", [3, 61])
def test_batches_ranks_and_empty_batches_do_not_change_fidelity(batches):
    student, teacher, label = pair(61)
    parts = [*torch.arange(61).tensor_split(batches), torch.arange(0)]
    assert follow(student, teacher, label, parts) == pytest.approx(follow(student, teacher, label), rel=1e-13)
    first, second, idle = FidelityMetrics(), FidelityMetrics(), FidelityMetrics()  # three processes, one without images
    for rank, part in ((first, slice(0, 40)), (second, slice(40, None))):
        rank.update(student[part], teacher[part], label[part])
    for name, metric in first.named_children():
        for rank in (second, idle):
            metric.merge_state(getattr(rank, name).metric_state)  # the reduction of DDP
    together = {name: value.item() for name, value in first.compute().items()}
    assert together == pytest.approx(analysed(student, teacher, label), rel=1e-12)


def test_what_is_not_defined_is_nan_and_not_zero():
    right = torch.eye(3)
    measured = follow(right, right, torch.arange(3))
    assert math.isnan(measured["same_wrong_rate"])  # nobody errs
    assert math.isnan(follow(torch.zeros(3, 4), torch.eye(3, 4), torch.arange(3))["spearman"])


def test_fidelity_starts_anew_after_computing_and_is_no_part_of_a_checkpoint():
    metrics = FidelityMetrics()
    metrics.update(*pair(20, 4))
    metrics.compute()
    metrics.update(*pair(30, 4, seed=5))
    assert {name: value.item() for name, value in metrics.compute().items()} == follow(*pair(30, 4, seed=5))
    assert not metrics.state_dict()


# -- members of an ensemble -----------------------------------------------------------------------------------


def member_answers(members=3, count=50, classes=4):
    logits = [answers(count, classes, seed=m, scale=1.0)[0] for m in range(members)]
    return logits, answers(count, classes, seed=99)[1]


def members_by_hand(logits, label):
    predictions = [answer.argmax(dim=-1).tolist() for answer in logits]
    truth, pairs = label.tolist(), list(itertools.combinations(predictions, 2))
    values = {f"m{m}_accuracy": accuracy_score(truth, prediction) for m, prediction in enumerate(predictions)}
    if pairs:
        values["disagreement"] = sum(1 - accuracy_score(one, other) for one, other in pairs) / len(pairs)
    return values


@pytest.mark.parametrize("members", [1, 2, 3, 4])
@pytest.mark.parametrize("batches", [1, 3, 50])
def test_each_member_has_its_accuracy_and_all_pairs_their_disagreement(members, batches):
    logits, label = member_answers(members)
    metrics = MemberMetrics([f"m{m}" for m in range(members)])
    for part in torch.arange(len(label)).tensor_split(batches):
        metrics.update([answer[part] for answer in logits], label[part])
    computed = {name: value.item() for name, value in metrics.compute().items()}
    assert list(computed) == list(members_by_hand(logits, label))
    assert computed == pytest.approx(members_by_hand(logits, label), rel=1e-12)


def test_members_of_batches_of_different_size_count_by_images():
    right, wrong = torch.eye(2), torch.eye(2).flip(0)
    metrics = MemberMetrics(["a", "b"])
    metrics.update([right, right], torch.arange(2))
    metrics.update([right[:1], wrong[:1]], torch.arange(1))
    values = {name: value.item() for name, value in metrics.compute().items()}
    assert values == pytest.approx({"a_accuracy": 1.0, "b_accuracy": 2 / 3, "disagreement": 1 / 3})


def test_members_start_anew_after_computing():
    metrics = MemberMetrics(["a", "b"])
    metrics.update([torch.eye(2), torch.eye(2).flip(0)], torch.arange(2))
    metrics.compute()
    metrics.update([torch.eye(2), torch.eye(2)], torch.arange(2))
    assert {name: value.item() for name, value in metrics.compute().items()} == {
        "a_accuracy": 1.0, "b_accuracy": 1.0, "disagreement": 0.0,
    }  # fmt: skip


def test_a_single_network_has_no_members_and_nothing_is_computed():
    metrics = MemberMetrics([])
    metrics.update([], torch.arange(3))
    assert metrics.compute() == {}


def test_member_metrics_are_no_part_of_a_checkpoint():
    metrics = MemberMetrics(["a", "b"])
    metrics.update([torch.eye(2), torch.eye(2)], torch.arange(2))
    assert not metrics.state_dict()


# -- means of an epoch ----------------------------------------------------------------------------------------


def values(loss, accuracy=0.0):
    return {"loss": torch.tensor(loss), "accuracy": torch.tensor(accuracy)}


def test_the_mean_of_an_epoch_counts_samples_not_batches():
    means = EpochMeans()
    means.add(values(1.0, 0.5), 30)
    means.add(values(4.0, 1.0), 10)
    computed = means.compute()
    assert list(computed) == ["loss", "accuracy"]
    assert computed["loss"].item() == pytest.approx((30 + 40) / 40, rel=1e-12)
    assert computed["accuracy"].item() == pytest.approx((15 + 10) / 40, rel=1e-12)


@pytest.mark.parametrize("then", [["a"], ["a", "b", "c"], ["b", "a"], ["a", "other"]])
def test_terms_that_change_within_an_epoch_are_an_error(then):
    means = EpochMeans()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, 1)
    with pytest.raises(UsageError, match=f"the terms of a step are {', '.join(then)}, but were a, b before; return"):
        means.add({name: torch.tensor(1.0) for name in then}, 1)
    means.compute()
    means.add({name: torch.tensor(1.0) for name in then}, 1)  # another epoch


def test_the_means_start_anew_after_an_epoch():
    means = EpochMeans()
    means.add(values(100.0), 30)
    means.compute()
    assert means.compute() == {}
    means.add(values(2.0), 5)
    assert means.compute()["loss"].item() == 2.0


def test_the_means_are_summed_in_float64():
    means = EpochMeans()
    for _ in range(1000):
        means.add({"loss": torch.tensor(0.1)}, 128)
    # the value is float32's 0.1; in float32 the sum itself would be off by 1e-5
    assert means.compute()["loss"].item() == pytest.approx(torch.tensor(0.1).double().item(), rel=1e-12)


def test_the_means_hold_no_graph():
    means = EpochMeans()
    means.add({"loss": torch.ones((), requires_grad=True) * 2}, 3)
    assert not means.compute()["loss"].requires_grad


def test_the_means_survive_saving_in_mid_epoch():
    uninterrupted, before, after = EpochMeans(), EpochMeans(), EpochMeans()
    for part in (uninterrupted, before):
        part.add(values(1.0, 0.25), 20)
        part.add(values(3.0, 0.75), 7)
    state = before.state_dict()
    before.add(values(99.0), 50)  # what the killed run did after its resume point
    after.load_state_dict(state, is_first_process=True)
    for part in (uninterrupted, after):
        part.add(values(5.0, 0.5), 13)
    assert after.compute() == uninterrupted.compute()


def test_saved_means_are_tensors_and_plain_values(tmp_path):
    means = EpochMeans()
    means.add(values(1.0), 20)
    torch.save(means.state_dict(), tmp_path / "means.pt")
    again = EpochMeans()
    again.load_state_dict(torch.load(tmp_path / "means.pt", weights_only=True), is_first_process=True)
    assert again.compute()["loss"].item() == 1.0


def test_saved_means_are_counted_by_the_first_process_only():
    means = EpochMeans()
    means.add(values(1.0), 20)
    ranks = [EpochMeans(), EpochMeans()]
    for rank, part in enumerate(ranks):
        part.load_state_dict(means.state_dict(), is_first_process=rank == 0)
        part.add(values(2.0), 10)
    total = sum(part.state_dict()["totals"] for part in ranks)  # what all_reduce would make of them
    assert total.tolist() == [20 + 20 + 20, 0, 40]


def test_saving_between_two_epochs_saves_nothing():
    means, again = EpochMeans(), EpochMeans()
    means.add(values(1.0), 20)
    means.compute()
    again.load_state_dict(means.state_dict(), is_first_process=True)
    again.add(values(3.0), 1)
    assert again.compute()["loss"].item() == 3.0
