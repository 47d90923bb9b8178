"""The copy that is measured: complete, bare, and nothing of the original moves."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kdlab.profiling import isolation
from kdlab.profiling.isolation import bare_copy, describe_device, device_name, isolated, noise_batch, noise_image
from kdlab.run.environment import describe_environment


def test_the_copy_has_the_same_weights_in_other_memory(hand_counted):
    copied = bare_copy(hand_counted)
    originals, copies = hand_counted.state_dict(), copied.state_dict()
    assert originals.keys() == copies.keys()
    for name, tensor in originals.items():
        assert copies[name].equal(tensor)
        assert copies[name].data_ptr() != tensor.data_ptr()


def test_the_copy_is_in_eval_mode_and_the_original_keeps_the_mode_of_each_module(hand_counted):
    hand_counted.train()
    hand_counted.norm.eval()
    assert not any(module.training for module in bare_copy(hand_counted).modules())
    assert [module.training for module in hand_counted.modules()] == [True, True, True, False, True, True]


def test_no_hook_of_any_kind_is_copied_and_the_original_keeps_its_own(hand_counted):
    called = []

    class System:  # stands for a training system that must not be copied along
        def __deepcopy__(self, memo):
            raise AssertionError("the owner of a hook was copied")

        def hook(self, *args):
            called.append(len(args))

    owner = System()
    hand_counted.conv.register_forward_hook(owner.hook)
    hand_counted.conv.register_forward_pre_hook(owner.hook)
    hand_counted.fc.register_full_backward_hook(owner.hook)
    hand_counted.register_state_dict_pre_hook(owner.hook)
    copied = bare_copy(hand_counted)
    copied(torch.zeros(1, 3, 8, 8)).sum().backward()
    copied.state_dict()
    assert called == []
    hand_counted(torch.zeros(2, 3, 8, 8)).sum().backward()
    assert sorted(called) == [2, 3, 3]


def test_the_copy_keeps_what_is_frozen_and_has_no_gradients(hand_counted):
    hand_counted.conv.requires_grad_(False)
    hand_counted(torch.zeros(2, 3, 8, 8)).sum().backward()
    copied = bare_copy(hand_counted)
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in hand_counted.parameters()]
    assert all(p.grad is None for p in copied.parameters())
    assert hand_counted.fc.weight.grad is not None


def test_a_compiled_network_is_copied_uncompiled(hand_counted):
    compiled = torch.compile(hand_counted)
    assert type(compiled) is not type(hand_counted)
    assert type(bare_copy(compiled)) is type(hand_counted)


def test_random_numbers_drawn_inside_are_not_missed_outside(hand_counted):
    before = torch.random.get_rng_state()
    with isolated(hand_counted):
        torch.rand(100)
        torch.manual_seed(7)
    assert torch.random.get_rng_state().equal(before)


def test_a_copy_made_inside_a_test_loop_can_be_differentiated(hand_counted):
    with torch.inference_mode(), isolated(hand_counted) as copied:
        copied(torch.zeros(1, 3, 8, 8)).sum().backward()
        assert copied.fc.weight.grad is not None
    assert hand_counted.fc.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_noise_is_the_same_each_time_in_the_type_of_the_network(dtype):
    network = nn.Linear(2, 2).to(dtype)
    state = torch.random.get_rng_state()
    image = noise_image(network, (3, 8, 4))
    assert image.shape == (1, 3, 8, 4)
    assert image.dtype == dtype
    assert image.equal(noise_image(network, (3, 8, 4)))
    assert torch.random.get_rng_state().equal(state)


def test_the_images_of_a_noise_batch_differ():
    batch = noise_batch(torch.zeros(1, 1, 4, 4), 5)
    assert batch.shape == (5, 1, 4, 4)
    assert len({tuple(image.flatten().tolist()) for image in batch}) == 5


def test_a_copy_on_another_device_leaves_the_network_where_it_is(hand_counted):
    with isolated(hand_counted, torch.device("meta")) as copied:
        assert {tensor.device.type for tensor in copied.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in hand_counted.state_dict().values()} == {"cpu"}


def test_a_processor_is_described_with_its_model_its_cores_and_the_threads(monkeypatch):
    monkeypatch.setattr(isolation.os, "cpu_count", lambda: 6)
    monkeypatch.setattr(
        Path, "read_text", lambda path: "processor: 0\nmodel name\t: Some Processor v2: fast\nmodel name: x"
    )
    assert device_name(torch.device("cpu")) == "Some Processor v2: fast, 6 cores"
    assert (
        describe_device(torch.device("cpu")) == f"Some Processor v2: fast, 6 cores, {torch.get_num_threads()} thread(s)"
    )


def test_a_processor_without_cpuinfo_is_named_by_the_system(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(isolation.platform, "processor", lambda: "")
    monkeypatch.setattr(isolation.platform, "machine", lambda: "arm64")
    assert device_name(torch.device("cpu")).startswith("arm64, ")


def test_a_gpu_is_named_by_its_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Some Board {device.index}")
    assert describe_device(torch.device("cuda", 1)) == "Some Board 1"


def test_there_is_one_name_for_a_device():
    assert describe_environment(torch.device("cpu"))["device"] == device_name(torch.device("cpu"))
