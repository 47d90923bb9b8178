import pytest
import torch

from kdlab.data.split import Split, add_label_noise, few_labels, hold_out
from kdlab.errors import UsageError


def make_split(count=1000, num_classes=10, file_positions=None):
    index = torch.arange(count) if file_positions is None else file_positions
    labels = index % num_classes
    return Split(torch.zeros(len(index), 1, 2, 2, dtype=torch.uint8), labels, labels, index)


def test_hold_out_divides_all_images_and_keeps_the_order():
    labels = torch.arange(1003) % 7
    kept, held = hold_out(labels, 100, split_seed=0)
    assert len(held) == 100
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(1003))
    assert torch.equal(kept, kept.sort().values)
    assert torch.equal(held, held.sort().values)


@pytest.mark.parametrize("count", [0, 1, 13, 100, 499, 500])
def test_hold_out_gives_every_class_its_share_to_within_one_image(count):
    sizes = torch.tensor([3, 50, 97, 150, 200])
    labels = torch.repeat_interleave(torch.arange(5), sizes)
    _, held = hold_out(labels, count, split_seed=1)
    per_class = torch.bincount(labels[held], minlength=5)
    assert per_class.sum() == count
    assert ((per_class - sizes * count / 500).abs() < 1).all()


def test_hold_out_depends_on_the_split_seed_only():
    labels = torch.arange(1000) % 10
    assert torch.equal(hold_out(labels, 100, 0)[1], hold_out(labels, 100, 0)[1])
    assert not torch.equal(hold_out(labels, 100, 0)[1], hold_out(labels, 100, 1)[1])


def test_a_smaller_hold_out_of_balanced_classes_is_part_of_a_larger_one():
    labels = torch.arange(1000) % 10
    assert set(hold_out(labels, 50, 0)[1].tolist()) < set(hold_out(labels, 100, 0)[1].tolist())


def test_few_labels_keeps_the_number_of_each_class_and_larger_choices_contain_smaller_ones():
    labels = make_split(1003).labels
    five, twenty = (few_labels(labels, number, 10, split_seed=0) for number in (5, 20))
    assert torch.bincount(labels[five]).tolist() == [5] * 10
    assert torch.bincount(labels[twenty]).tolist() == [20] * 10
    assert set(five.tolist()) < set(twenty.tolist())


@pytest.mark.parametrize("missing", [0, 9])
def test_too_few_images_of_a_class_are_named(missing):
    labels = torch.arange(100) % 10
    with pytest.raises(UsageError, match=f"train_per_class is 1 but class {missing} has 0 images to train on"):
        few_labels(labels[labels != missing], 1, 10, 0)


@pytest.mark.parametrize("kind", ["uniform", "minus_one"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.333, 1.0])
def test_the_share_of_wrong_labels_is_exact(kind, share):
    split = add_label_noise(make_split(), share, kind, 10, split_seed=0)
    assert len(split.noisy) == round(share * 1000)
    assert torch.equal(split.clean_labels, make_split().labels)
    assert split.labels.min() >= 0
    assert split.labels.max() <= 9


def test_minus_one_turns_a_four_into_a_three_and_a_zero_into_a_nine():
    split = add_label_noise(make_split(), 1.0, "minus_one", 10, split_seed=0)
    assert torch.equal(split.labels, (split.clean_labels - 1) % 10)


def test_uniform_noise_reaches_all_other_classes_about_equally():
    split = add_label_noise(make_split(90_000), 1.0, "uniform", 10, split_seed=0)
    counts = torch.zeros(10, 10).index_put_((split.clean_labels, split.labels), torch.tensor(1.0), accumulate=True)
    others = counts[~torch.eye(10, dtype=torch.bool)]
    assert counts.diagonal().sum() == 0
    assert (others - 1000).abs().max() < 150  # five standard deviations of a count of 1000


def test_noise_of_an_image_does_not_depend_on_which_others_are_trained_on():
    whole = add_label_noise(make_split(), 1.0, "uniform", 10, split_seed=0)
    part = make_split(file_positions=torch.arange(0, 1000, 3))
    assert torch.equal(add_label_noise(part, 1.0, "uniform", 10, split_seed=0).labels, whole.labels[::3])


def test_select_keeps_the_positions_in_the_file():
    part = make_split().select(torch.tensor([5, 900])).select(torch.tensor([1]))
    assert part.index.tolist() == [900]
    assert part.labels.tolist() == [0]


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_are_the_whole_split_in_its_order_and_unaugmented(size):
    split = make_split(file_positions=torch.tensor([4, 9, 2, 30, 31, 8, 0]))
    batches = list(split.batches(size))
    assert [len(batch.label) for batch in batches] == [min(size, 7 - start) for start in range(0, 7, size)]
    assert torch.cat([batch.index for batch in batches]).tolist() == [4, 9, 2, 30, 31, 8, 0]
    assert torch.cat([batch.label for batch in batches]).tolist() == [4, 9, 2, 0, 1, 8, 0]
    assert torch.equal(torch.cat([batch.image for batch in batches]), split.images)
    assert all(batch.view.eq(0).all() and batch.view.dtype == torch.int64 for batch in batches)
