import torch

from kdlab.data import Normalize


def test_normalize_equals_the_formula():
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, -1, -1)
    mean, std = torch.tensor([0.5, 0.4, 0.0]), torch.tensor([0.25, 1.0, 0.3])
    expected = (image.double() / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    actual = Normalize([0.5, 0.4, 0.0], [0.25, 1.0, 0.3])(image)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, atol=1e-6, rtol=1e-6)  # float32 rounding


def test_mean_zero_and_std_one_scale_to_zero_one():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(Normalize([0.0], [1.0])(image).view(-1), torch.tensor([0.0, 0.2, 1.0]))


def test_an_empty_batch_stays_empty():
    assert Normalize([0.5], [1.0])(torch.zeros(0, 1, 8, 8, dtype=torch.uint8)).shape == (0, 1, 8, 8)
