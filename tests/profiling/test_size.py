"""Parameters, bytes and memory against networks counted by hand."""

import torch
from torch import nn

from kdlab.profiling import ModelSizeProfiler


def size(network, image_shape=(1, 2, 5)):
    return ModelSizeProfiler().profile(network, image_shape)


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 1))


def test_parameters_of_a_perceptron_are_weights_and_biases():
    network = perceptron()
    network[1].requires_grad_(False)
    result = size(network)
    assert result.parameters == 10 * 100 + 100 + 100 + 1
    assert result.trainable_parameters == 101


def test_the_saved_state_holds_parameters_and_buffers_in_their_own_types():
    # batch norm of 3: weight, bias, mean, variance of 3 floats each, one counter of 8 bytes
    result = size(nn.BatchNorm2d(3), (3, 4, 4))
    assert result.size_bytes == result.size_bytes_fp32 == 12 * 4 + 8
    assert result.size_bytes_fp16 == 12 * 2 + 8
    assert result.size_bytes_int8_estimate == 12 * 4 + 8  # nothing here has two dimensions


def test_the_size_estimate_in_int8_keeps_a_scale_per_output_channel():
    assert size(perceptron()).size_bytes_int8_estimate == (1000 + 4 * 100 + 4 * 100) + (100 + 4 + 4)


def test_a_half_precision_network_is_half_the_bytes_and_says_what_it_would_be_in_fp32():
    result = size(perceptron().bfloat16())
    assert (result.size_bytes, result.size_bytes_fp32, result.size_bytes_fp16) == (2402, 4804, 2402)


def test_the_size_is_what_torch_saves(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(10, 5000))
    torch.save(network.state_dict(), tmp_path / "state.pt")
    saved = (tmp_path / "state.pt").stat().st_size
    assert 0 < saved - size(network).size_bytes < 4096  # zip directory and names


def test_a_shared_weight_is_counted_once():
    network = nn.Sequential(nn.Flatten(), nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    network[2].weight = network[1].weight
    result = size(network)
    assert (result.parameters, result.size_bytes) == (100, 400)


def test_a_buffer_that_is_not_saved_is_not_counted():
    network = perceptron()
    network.register_buffer("cache", torch.zeros(1000), persistent=False)
    assert size(network).size_bytes == 4804


def test_peak_memory_of_a_perceptron_is_two_hidden_layers_at_once():
    # state 4804, image 40, and while the ReLU runs its input and output of 100 floats each
    assert size(perceptron()).inference_peak_bytes == 4804 + 40 + 400 + 400


def test_an_in_place_activation_saves_its_output():
    network = nn.Sequential(nn.Flatten(), nn.Linear(10, 100), nn.ReLU(inplace=True), nn.Linear(100, 1))
    assert size(network).inference_peak_bytes == 4804 + 40 + 400 + 4  # while the last layer runs


def test_memory_that_is_freed_is_not_counted_again():
    layers = [layer for _ in range(50) for layer in (nn.Linear(64, 64, bias=False), nn.ReLU())]
    result = size(nn.Sequential(nn.Flatten(), *layers), (1, 8, 8))
    assert result.inference_peak_bytes == result.size_bytes + 256 + 2 * 256


def test_all_metrics_are_numbers_with_stable_keys():
    profiler = ModelSizeProfiler()
    profiler.profile(perceptron(), (1, 2, 5))
    names = ("parameters", "trainable_parameters", "size_bytes", "size_bytes_fp32", "size_bytes_fp16",
             "size_bytes_int8_estimate", "inference_peak_bytes")  # fmt: skip
    assert set(profiler.as_metrics()) == {f"profile/{name}" for name in names}
    assert profiler.profile(perceptron(), (1, 2, 5)) == profiler.result
