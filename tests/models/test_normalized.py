import pytest
import torch
from torch import nn

from kdlab.errors import UsageError
from kdlab.models import Normalized
from kdlab.models.folding import Folded


def test_the_network_reads_what_it_was_trained_on():
    image = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1)
    seen = Normalized(nn.Flatten(), mean=[0.5, 0.4], std=[0.1, 0.2])(image)
    assert torch.allclose(seen, torch.tensor([[0.0, 3.0]]))


def test_weights_are_those_of_the_network_alone():
    network = Normalized(nn.Linear(2, 3), mean=[0.0], std=[1.0])
    assert list(network.state_dict()) == ["network.weight", "network.bias"]


def test_another_normalisation_is_another_teacher():
    one, other = (Normalized(nn.Flatten(), mean=[mean], std=[1.0]) for mean in (0.1, 0.2))
    assert repr(one) != repr(other)


def test_its_batch_norms_can_be_folded():
    torch.manual_seed(0)
    inside = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    inside[1].running_mean.uniform_()
    network = Normalized(inside, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4]).eval()
    image = torch.rand(2, 3, 8, 8)
    folded = Folded(network, image[:1])
    assert torch.allclose(folded(image), network(image), atol=1e-5)


@pytest.mark.parametrize(("mean", "std"), [([0.1], [0.1, 0.2]), ([], [])])
def test_mean_and_std_must_be_of_one_length(mean, std):
    with pytest.raises(UsageError, match="give one of each per channel"):
        Normalized(nn.Flatten(), mean, std)


def test_a_std_of_zero_is_refused():
    with pytest.raises(UsageError, match="positive"):
        Normalized(nn.Flatten(), [0.1], [0.0])
