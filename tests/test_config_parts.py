"""Networks in a config, and what they get from the data."""

import pytest
from jsonargparse import Namespace

from kdlab.config_parts import fill_in_from_data, network_slots


@pytest.fixture
def config():
    """A network of its own and one in a list, each as the parser leaves them: with its default of 10 classes."""

    def network():
        return Namespace(class_path="kdlab.models.ResNet20", init_args=Namespace(num_classes=10, in_channels=3))

    members = Namespace(class_path="kdlab.models.ensemble.NetworkEnsemble", init_args=Namespace(networks=[network()]))
    arguments = Namespace(student=network(), ensemble=members)
    return Namespace(
        model=Namespace(class_path="kdlab.methods.LogitMatching", init_args=arguments),
        data=Namespace(class_path="kdlab.data.CIFAR100"),
    )


def test_networks_are_found_with_their_keys(config):
    slots = [(slot.key, slot.in_list) for slot in network_slots(config.model, "model")]
    assert slots == [("model.student", False), ("model.ensemble.networks[0]", True)]


def test_only_networks_in_lists_are_filled_in(config):
    fill_in_from_data(config)
    found = [slot.config.init_args.num_classes for slot in network_slots(config.model, "model")]
    assert found == [10, 100]
