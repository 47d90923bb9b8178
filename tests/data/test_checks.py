"""A data set of one's own that says too little of itself, or reads something else, is told what is missing."""

import pytest
import torch

from kdlab.data import ImageData
from kdlab.errors import UsageError

IMAGES, LABELS = torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2


class Bare(ImageData):
    def read(self, part):
        return IMAGES, LABELS, "digest"


class Stated(Bare):
    num_classes, in_channels, image_size = 2, 1, 8
    class_names = ("even", "odd")
    num_train_images = num_test_images = 20
    default_mean, default_std = (0.0,), (1.0,)


def reading(answer):
    class Own(Stated):
        def read(self, part):
            return answer

    return Own()


def test_a_data_set_that_says_what_it_must_is_taken():
    assert len(Stated(val_fraction=0.5).train_split) == 10


def test_all_that_a_data_set_does_not_say_is_named_at_once():
    with pytest.raises(UsageError) as caught:
        Bare()
    assert str(caught.value) == (
        "Bare does not say its num_classes, in_channels, image_size, class_names, num_train_images, num_test_images, "
        "default_mean, default_std; set that in the class, or before super().__init__()"
    )


def test_what_is_said_before_the_constructor_of_the_base_counts():
    class Late(Bare):
        num_classes, in_channels, image_size, class_names = 2, 1, 8, ("even", "odd")
        default_mean, default_std = (0.0,), (1.0,)

        def __init__(self):
            self.num_train_images = self.num_test_images = 20
            super().__init__(val_fraction=0)

    assert len(Late().train_split) == 20


def test_a_class_without_a_name_is_said():
    class Nameless(Stated):
        class_names = ("even",)

    with pytest.raises(UsageError, match="Nameless has 2 classes but 1 class_names; give one name per class"):
        Nameless()


def test_a_data_set_that_cannot_be_read_is_none():
    class Unread(ImageData):
        num_classes, in_channels, image_size = 2, 1, 8

    with pytest.raises(TypeError, match=r"abstract.*read"):
        Unread()


@pytest.mark.parametrize(
    ("answer", "returned"),
    [
        (None, "NoneType"),
        ((IMAGES, LABELS), "Tensor, Tensor"),
        ((IMAGES.numpy(), LABELS.numpy(), "digest"), "ndarray, ndarray, str"),
        ((IMAGES, LABELS, None), "Tensor, Tensor, NoneType"),
        ((IMAGES, LABELS, "digest", "more"), "Tensor, Tensor, str, str"),
    ],
)
def test_what_read_returned_is_said_beside_what_it_must(answer, returned):
    with pytest.raises(UsageError) as caught:
        reading(answer).setup("fit")
    assert str(caught.value) == (
        f"Own.read('train') returned {returned}, expected images [N, C, H, W] and labels [N] as tensors and the "
        "SHA-256 of both as text; mend read"
    )


def test_read_may_return_a_list():
    assert len(reading([IMAGES, LABELS, "digest"]).train_split) == 18
