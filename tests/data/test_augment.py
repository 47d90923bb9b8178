import pytest
import torch
import torch.nn.functional as F

from kdlab.data import RandomCropFlip
from kdlab.errors import UsageError


def naive(image, view, padding, flip):
    """One image at a time, written as the docstring says it."""
    shifts = 2 * padding + 1
    mirrored = flip and view % 2 == 1
    place = view // 2 if flip else view
    dy, dx = divmod(place, shifts)
    padded = F.pad(image, (padding,) * 4)
    crop = padded[:, dy : dy + image.shape[1], dx : dx + image.shape[2]]
    return crop.flip(-1) if mirrored else crop


def images(count, channels=3, height=32, width=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("padding", "flip", "shape"),
    [(4, True, (3, 32, 32)), (2, False, (1, 8, 8)), (1, True, (1, 5, 7)), (0, True, (2, 4, 4)), (0, False, (1, 4, 4))],
)
def test_every_view_equals_padding_cropping_and_mirroring_one_image(padding, flip, shape):
    augmentation = RandomCropFlip(padding, flip)
    batch = images(augmentation.num_views, *shape)
    views = torch.arange(augmentation.num_views)
    expected = torch.stack(
        [naive(image, view, padding, flip) for image, view in zip(batch, views.tolist(), strict=True)]
    )
    assert torch.equal(augmentation(batch, views), expected)


def test_padding_four_and_mirroring_make_162_different_views():
    augmentation = RandomCropFlip()
    assert augmentation.num_views == 162
    all_views = augmentation(images(1).expand(162, -1, -1, -1), torch.arange(162))
    assert len(all_views.flatten(1).unique(dim=0)) == 162


def test_a_view_does_not_depend_on_the_batch_around_it_nor_on_global_random_state():
    augmentation, batch = RandomCropFlip(), images(20)
    views = torch.arange(20) * 8
    whole = augmentation(batch, views)
    torch.manual_seed(1)
    assert torch.equal(augmentation(batch[7:9], views[7:9]), whole[7:9])


def test_the_images_themselves_stay_as_they_were():
    batch = images(8)
    before = batch.clone()
    RandomCropFlip()(batch, torch.arange(8))
    assert torch.equal(batch, before)


def test_an_empty_batch_stays_empty():
    assert RandomCropFlip()(images(0), torch.arange(0)).shape == (0, 3, 32, 32)


def test_an_image_of_a_channels_last_batch_is_cropped_alike():
    batch, views = images(6), torch.arange(6) * 20
    expected = RandomCropFlip()(batch, views)
    assert torch.equal(RandomCropFlip()(batch.contiguous(memory_format=torch.channels_last), views), expected)


def test_negative_padding_is_refused():
    with pytest.raises(UsageError, match="padding is -1"):
        RandomCropFlip(padding=-1)
