import torch

from kdlab.data import Digits
from kdlab.data.files import content_digest


def test_the_digits_are_those_of_scikit_learn_times_fifteen():
    from sklearn.datasets import load_digits

    images = torch.cat([Digits().read(part)[0] for part in ("train", "test")])
    assert images.shape == (1797, 1, 8, 8)
    labels = torch.cat([Digits().read(part)[1] for part in ("train", "test")])
    ours = sorted((bytes(image.flatten().tolist()), int(label)) for image, label in zip(images, labels, strict=True))
    theirs = load_digits()
    pairs = zip(theirs.images, theirs.target, strict=True)
    assert ours == sorted((bytes((15 * image.flatten()).astype(int).tolist()), int(label)) for image, label in pairs)


def test_train_and_test_have_the_stated_sizes_shapes_and_names(digits):
    assert len(digits.test_split) == Digits.num_test_images == 360
    assert len(digits.train_split) + len(digits.val_split) == Digits.num_train_images == 1437
    assert digits.image_shape == tuple(digits.test_split.images.shape[1:]) == (1, 8, 8)
    assert len(Digits.class_names) == Digits.num_classes == 10


def test_the_test_split_is_stratified_and_no_argument_changes_it(digits):
    labels = digits.test_split.labels
    assert torch.bincount(labels).min() >= 34  # the rarest digit has 174 images, a fifth is 34.8
    other = Digits(seed=1, split_seed=1, val_fraction=0.3, label_noise=0.5, train_per_class=5)
    assert torch.equal(other.test_split.images, digits.test_split.images)
    assert torch.equal(other.test_split.labels, labels)


def test_the_test_split_never_changes():
    # Recorded when this was written: another digest would mean another test split, and old results would not compare.
    images, labels, digest = Digits().read("test")
    assert (
        digest == content_digest(images, labels) == "bdcc43f370447e46a060e133be6b592c6164a30a21a7d46929ac13d4f99686ad"
    )
