import pytest
import torch

from kdlab.data import Augmentation, CutMix, Digits, Mixup, RandomCropFlip
from kdlab.errors import UsageError
from kdlab.types import Batch


class Countless(Augmentation):
    num_views = None

    def forward(self, image, view):
        return image ^ (view % 256).to(torch.uint8).view(-1, 1, 1, 1)


def first_batch(data):
    return next(iter(data.train_dataloader()))


def test_what_a_network_needs_is_known_before_setup():
    data = Digits(augmentation=RandomCropFlip(1, flip=False))
    assert (data.num_classes, data.in_channels, data.image_size, data.image_shape) == (10, 1, 8, (1, 8, 8))
    assert data.num_views == 9
    assert data.class_names[3] == "3"


def test_views_are_counted_only_where_they_can_be():
    assert Digits().num_views == 1
    assert Digits(augmentation=Countless()).num_views is None
    assert Digits(augmentation=RandomCropFlip(), mixing=Mixup()).num_views is None


def test_validation_images_are_held_out_stratified_and_do_not_depend_on_the_seed_of_the_run(digits):
    other = Digits(seed=7)
    assert torch.equal(other.val_split.index, digits.val_split.index)
    assert set(digits.val_split.index.tolist()).isdisjoint(digits.train_split.index.tolist())
    assert len(digits.val_split) == 144
    assert torch.bincount(digits.val_split.labels).min() >= 13
    assert not torch.equal(Digits(split_seed=1).val_split.index, digits.val_split.index)


def test_index_is_the_position_in_the_training_file_whatever_is_held_out():
    images, labels, _ = Digits().read("train")
    for data in (Digits(), Digits(val_fraction=0.5), Digits(train_per_class=20), Digits(val_fraction=0)):
        for split in (data.train_split, data.val_split):
            assert torch.equal(split.images, images[split.index])
            assert torch.equal(split.labels, labels[split.index])


def test_label_noise_touches_exactly_its_share_of_the_training_labels_and_no_others(digits):
    data = Digits(label_noise=0.25, label_noise_kind="minus_one")
    assert len(data.train_split.noisy) == round(0.25 * 1293)
    noisy = data.train_split.noisy
    assert torch.equal(data.train_split.labels[noisy], (data.train_split.clean_labels[noisy] - 1) % 10)
    assert torch.equal(data.val_split.labels, digits.val_split.labels)
    assert torch.equal(data.test_split.labels, digits.test_split.labels)
    assert torch.equal(first_batch(data).label, data.train_split.labels[
        torch.searchsorted(data.train_split.index, first_batch(data).index)])  # fmt: skip


def test_the_fingerprint_names_the_training_file_and_not_the_part_of_it_that_is_trained_on(digits):
    assert Digits(val_fraction=0.3, label_noise=0.5, train_per_class=10).fingerprint() == digits.fingerprint()
    assert len(digits.fingerprint()) == 64


def test_the_protocol_is_described():
    data = Digits(label_noise=0.1, augmentation=RandomCropFlip(2, flip=False), batch_size=32)
    description = data.describe()
    assert description["n_train"] == 1293
    assert description["n_val"] == 144
    assert description["n_test"] == 360
    assert description["n_noisy_labels"] == 129
    assert description["label_noise_kind"] == "uniform"
    assert description["augmentation"] == "RandomCropFlip(padding=2, flip=False)"
    assert description["num_views"] == 25
    assert description["batch_size"] == 32


def test_a_training_view_is_augmented_then_normalised():
    data = Digits(augmentation=RandomCropFlip(2), mean=[0.5], std=[0.25])
    batch = first_batch(data)
    seen = data.training_view(batch)
    expected = (RandomCropFlip(2)(batch.image, batch.view).float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(seen.image, expected)
    assert seen.label is batch.label
    assert torch.equal(seen.index, batch.index)


def test_countless_views_reach_the_augmentation_as_random_bits():
    data = Digits(augmentation=Countless())
    batch = first_batch(data)
    assert batch.view.max() > 2**50
    assert not torch.equal(data.training_view(batch).image, data.plain_view(batch).image)


def test_an_evaluated_batch_is_normalised_only():
    data = Digits(augmentation=RandomCropFlip(2), mixing=CutMix())
    (batch,) = data.val_dataloader()
    seen = data.on_after_batch_transfer(batch, 0)
    torch.testing.assert_close(seen.image, batch.image / 255)
    assert torch.equal(seen.label, data.val_split.labels)


def test_mixing_depends_on_seed_epoch_and_first_image_alone():
    def mixed(seed, epoch):
        data = Digits(mixing=Mixup(), seed=seed, batch_size=16)
        loader = data.train_dataloader()
        batch = next(iter(loader))
        loader.sampler.set_epoch(epoch)
        return data.training_view(batch).label.max(1).values.min()  # the weight of the batch

    assert mixed(0, 0) == mixed(0, 0)
    assert mixed(0, 0) != mixed(0, 1)
    assert mixed(0, 0) != mixed(1, 0)


def test_mixed_labels_are_soft_and_sum_to_one():
    data = Digits(mixing=CutMix())
    seen = data.training_view(first_batch(data))
    assert isinstance(seen, Batch)
    assert seen.label.shape == (128, 10)
    torch.testing.assert_close(seen.label.sum(1), torch.ones(128))


def test_without_a_held_out_share_there_is_no_validation():
    data = Digits(val_fraction=0)
    assert data.val_dataloader() == []
    assert len(data.val_split) == 0
    assert len(data.train_split) == 1437


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_fraction": 1.0}, "data.val_fraction is 1.0; give a share from 0 up to"),
        ({"val_fraction": -0.1}, "data.val_fraction is -0.1"),
        ({"val_fraction": float("nan")}, "data.val_fraction is nan"),
        ({"batch_size": 0}, "data.batch_size is 0; give 1 or a larger"),
        ({"eval_batch_size": -1}, "data.eval_batch_size is -1"),
        ({"train_per_class": 0}, "data.train_per_class is 0"),
        ({"label_noise": 1.5}, "data.label_noise is 1.5; give a share from 0 to 1"),
        ({"label_noise_kind": "pairs"}, "data.label_noise_kind is 'pairs'; give uniform or minus_one"),
        ({"mean": [0.5, 0.5, 0.5]}, r"data.mean has 3 value\(s\) but Digits images have 1 channel"),
        ({"std": [0.0]}, r"data.std is \(0.0,\); give positive numbers"),
        ({"std": []}, r"data.std has 0 value\(s\)"),
    ],
)
def test_an_argument_out_of_range_is_named_with_its_value_and_the_way_out(arguments, message):
    with pytest.raises(UsageError, match=message):
        Digits(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_per_class": 500}, "data.train_per_class is 500 but class . has 1.. images to train on; give at most"),
        ({"val_fraction": 0.0001}, "data.val_fraction 0.0001 of 1437 training images is not one image"),
        ({"batch_size": 1294}, r"data.batch_size is 1294 on 1 process\(es\) but there are only 1293 training images"),
    ],
)
def test_what_the_data_cannot_give_is_named_with_what_they_can(arguments, message):
    with pytest.raises(UsageError, match=message):
        Digits(**arguments).train_dataloader()
