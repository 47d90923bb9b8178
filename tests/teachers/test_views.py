import pytest
import torch

from kdlab.data import Digits, Mixup, RandomCropFlip
from kdlab.errors import UsageError
from kdlab.teachers.views import asked_rows, countable_views, views_digest, views_of


def small(**arguments):
    return Digits(**({"train_per_class": 3, "augmentation": RandomCropFlip(1, False)} | arguments))


def test_every_view_of_every_image_that_is_trained_on_is_one_row():
    data = small()
    rows = asked_rows(data).tolist()
    assert rows == sorted(9 * int(index) + view for index in data.train_split.index for view in range(9))
    assert asked_rows(small(augmentation=None)).tolist() == sorted(data.train_split.index.tolist())


def test_rows_are_the_inputs_that_training_makes():
    data = small()
    rows = asked_rows(data)
    batch = views_of(data, rows)
    assert (batch.index * 9 + batch.view).equal(rows)
    made = {int(row): image for row, image in zip(rows, batch.image, strict=True)}
    data.batch_size = 10
    loader = data.train_dataloader()
    for raw in loader:
        seen = data.training_view(raw)
        for row, image in zip(seen.index * 9 + seen.view, seen.image, strict=True):
            assert made[int(row)].equal(image)


def test_the_labels_are_those_of_the_images():
    data = small()
    batch = views_of(data, 9 * data.train_split.index)
    assert batch.label.equal(data.train_split.labels)


def test_the_digest_is_that_of_what_an_augmentation_does():
    same = views_digest(small())
    assert views_digest(small(seed=4, train_per_class=5, val_fraction=0.3)) == same
    others = [small(augmentation=RandomCropFlip(1)), small(mean=[0.2]), small(augmentation=None)]
    assert len({same, *map(views_digest, others)}) == 4


def test_views_must_be_countable():
    assert countable_views(small()) == 9
    with pytest.raises(UsageError, match="makes endlessly many inputs"):
        countable_views(small(mixing=Mixup()))


def test_views_of_an_image_that_is_held_out_are_none_of_training():
    data = small()
    assert not torch.isin(asked_rows(data) // 9, data.val_split.index).any()
