"""Weights files: what fits is loaded, what does not is refused in one line, and nothing in a file is run."""

import functools
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kdlab.errors import IntegrityError
from kdlab.models import DigitsConv, ResNet20, ResNet32
from kdlab.weights import digest, load_weights, read_card, save_weights

COUNTER = "num_batches_tracked"


@pytest.fixture
def network():
    torch.manual_seed(1)
    network = DigitsConv()
    network.train()(torch.rand(8, 1, 8, 8))  # batch norm statistics that are not the initial ones
    return network


def other():
    torch.manual_seed(2)
    return DigitsConv()


def expect_error(path, match, into=None):
    into = into or other()
    before = digest(into)
    with pytest.raises(IntegrityError, match=match) as caught:
        load_weights(into, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert digest(into) == before, "a file that was refused has changed the network"


def save(content, path):
    torch.save(content, path)
    return path


# -- round trip -----------------------------------------------------------------------------------------------


def test_weights_and_card_come_back_as_they_were_saved(network, tmp_path):
    card = {"epoch": 4, "val_accuracy": 0.5, "config": {"model": {"widths": [3, 6, 6]}, "ä": None}}
    save_weights(network, tmp_path / "student.safetensors", card)
    loaded = other()
    assert digest(loaded) != digest(network)
    assert load_weights(loaded, tmp_path / "student.safetensors") == card
    assert digest(loaded) == digest(network)
    assert read_card(tmp_path / "student.safetensors") == card
    assert [path.name for path in tmp_path.iterdir()] == ["student.safetensors"]


def test_saving_leaves_the_network_alone_and_loading_its_parameters_trainable(network, tmp_path):
    before = digest(network)
    save_weights(network, tmp_path / "s.safetensors", {})
    assert digest(network) == before
    loaded = other()
    parameters = list(loaded.parameters())
    load_weights(loaded, tmp_path / "s.safetensors")
    assert all(one is two and one.requires_grad for one, two in zip(parameters, loaded.parameters(), strict=True))


def test_a_network_whose_memory_is_strided_is_saved(network, tmp_path):
    before = digest(network)
    save_weights(network.to(memory_format=torch.channels_last), tmp_path / "s.safetensors", {})
    loaded = other()
    load_weights(loaded, tmp_path / "s.safetensors")
    assert digest(loaded) == before


def test_files_of_other_projects_have_an_empty_card(network, tmp_path):
    save_file({name: t.clone() for name, t in network.state_dict().items()}, tmp_path / "s.safetensors")
    assert load_weights(other(), tmp_path / "s.safetensors") == {}
    assert read_card(tmp_path / "s.safetensors") == {}
    assert read_card(tmp_path / "anything.pth") == {}


# -- other projects' files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "student.", "model.", "module._orig_mod.", "student._orig_mod.", "net.a.b."]
)
def test_any_prefix_is_taken_off(network, tmp_path, prefix):
    path = save({prefix + name: t for name, t in network.state_dict().items()}, tmp_path / "s.pth")
    loaded = other()
    load_weights(loaded, path)
    assert digest(loaded) == digest(network)


def test_a_network_whose_parts_were_compiled_one_by_one_is_read(network, tmp_path):
    state = {name.replace("layer2.", "layer2._orig_mod."): t for name, t in network.state_dict().items()}
    loaded = other()
    load_weights(loaded, save(state, tmp_path / "s.pth"))
    assert digest(loaded) == digest(network)


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state", "ema"])
def test_a_state_dict_one_level_down_is_found(network, tmp_path, key):
    path = save({"epoch": 240, key: network.state_dict(), "best_acc": torch.tensor(0.7)}, tmp_path / "s.ckpt")
    loaded = other()
    load_weights(loaded, path)
    assert digest(loaded) == digest(network)


@pytest.mark.parametrize("prefix", ["teacher.network.", "ema."])
def test_of_a_checkpoint_with_other_networks_the_student_is_taken(network, tmp_path, prefix):
    state = {prefix + name: t for name, t in other().state_dict().items()}
    state |= {f"student.{name}": t for name, t in network.state_dict().items()}
    loaded = DigitsConv()
    load_weights(loaded, save({"state_dict": state, "optimizer_states": []}, tmp_path / "last.ckpt"))
    assert digest(loaded) == digest(network)


def test_missing_batch_norm_counters_are_no_damage(network, tmp_path):
    state = {name: t for name, t in network.state_dict().items() if not name.endswith(COUNTER)}
    loaded = other()
    load_weights(loaded, save(state, tmp_path / "old.pth"))
    expected = network.state_dict()
    assert all(t.equal(expected[name]) for name, t in loaded.state_dict().items() if not name.endswith(COUNTER))


# -- files that do not fit ------------------------------------------------------------------------------------


def test_a_deeper_networks_weights_are_refused(tmp_path):
    save_weights(ResNet32(num_classes=10), tmp_path / "s.safetensors", {})
    expect_error(tmp_path / "s.safetensors", "does not fit ResNet20: ResNet20 has no", ResNet20(num_classes=10))


@pytest.mark.parametrize("prefix", ["module.", "student."])
def test_a_deeper_networks_weights_are_refused_under_a_prefix_too(tmp_path, prefix):
    state = {prefix + name: t for name, t in ResNet32(num_classes=10).state_dict().items()}
    expect_error(save(state, tmp_path / "s.pth"), "does not fit ResNet20", ResNet20(num_classes=10))


def test_a_shallower_networks_weights_are_refused(tmp_path):
    save_weights(ResNet20(num_classes=10), tmp_path / "s.safetensors", {})
    match = r"does not fit ResNet32: \d+ of \d+ tensors are missing, first .*another architecture"
    expect_error(tmp_path / "s.safetensors", match, ResNet32(num_classes=10))


def test_another_width_is_refused_with_both_shapes(tmp_path):
    save_weights(DigitsConv(widths=(3, 6, 7)), tmp_path / "s.safetensors", {})
    expect_error(tmp_path / "s.safetensors", r"shape \(7, 6, 3, 3\), expected \(6, 6, 3, 3\); check width")


def test_another_number_of_classes_is_refused_with_both_shapes(tmp_path):
    save_weights(DigitsConv(num_classes=100), tmp_path / "s.safetensors", {})
    expect_error(tmp_path / "s.safetensors", r"fc.weight has shape \(100, 6\), expected \(10, 6\).*num_classes")


def test_a_network_that_lacks_one_tensor_is_refused(network, tmp_path):
    state = network.state_dict()
    del state["layer2.1.running_var"]
    expect_error(save(state, tmp_path / "s.pth"), "1 of 20 tensors are missing, first layer2.1.running_var")


# -- files that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s.safetensors", "s.ckpt"])
def test_a_missing_file_is_an_error_that_says_so(tmp_path, name):
    expect_error(tmp_path / name, "does not exist; name a")


def test_a_folder_is_an_error_that_says_so(tmp_path):
    expect_error(tmp_path, "is a folder; name a")


@pytest.mark.parametrize("name", ["s.safetensors", "s.pth"])
def test_a_truncated_file_is_found_wherever_it_was_cut(network, tmp_path, name):
    path = tmp_path / name
    save_weights(network, path, {}) if name.endswith("safetensors") else save(network.state_dict(), path)
    content = path.read_bytes()
    offsets = {0, 1, 7, 8, 9, 64, len(content) - 1, *range(0, len(content), len(content) // 64)}
    loaded = other()
    before = digest(loaded)
    for offset in offsets:
        path.write_bytes(content[:offset])
        with pytest.raises(IntegrityError, match=r"damaged|no tensors|was not opened") as caught:
            load_weights(loaded, path)
        assert "\n" not in str(caught.value)
    assert digest(loaded) == before


@pytest.mark.parametrize(
    "content", [b"", b"model:\n  class_path: LogitMatching\n", b"\x89PNG\r\n\x1a\n" + bytes(100), b"{}", bytes(1000)]
)
@pytest.mark.parametrize("name", ["s.safetensors", "s.pth"])
def test_a_file_of_another_kind_is_called_damaged_and_not_dangerous(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    expect_error(tmp_path / name, "is damaged or no (safetensors|PyTorch) file")


def test_a_safetensors_file_with_a_damaged_header_is_refused(network, tmp_path):
    path = tmp_path / "s.safetensors"
    save_weights(network, path, {"epoch": 1})
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    for position, value in ((7, 0xFF), (8, ord("[")), (8 + header // 2, 0), (0, content[0] ^ 1)):
        damaged = bytearray(content)
        damaged[position] = value
        path.write_bytes(damaged)
        expect_error(path, "is damaged or no safetensors file|does not fit")


def test_a_card_that_is_no_json_is_damage(network, tmp_path):
    tensors = {name: t.clone() for name, t in network.state_dict().items()}
    save_file(tensors, tmp_path / "s.safetensors", metadata={"kdlab": "{epoch: "})
    expect_error(tmp_path / "s.safetensors", "is damaged or no safetensors file")
    with pytest.raises(IntegrityError, match="is damaged"):
        read_card(tmp_path / "s.safetensors")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"a": {"b": {"c": torch.ones(1)}}}, torch.ones(3), {}])
def test_a_file_without_tensors_by_name_is_refused(tmp_path, content):
    expect_error(save(content, tmp_path / "s.pth"), "holds no tensors by name")


# -- files that would run code --------------------------------------------------------------------------------


class Gadget:
    """Runs something when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def gadgets(canary):
    command = f"touch {canary}"
    inner = save(Gadget(os.system, command), canary.with_name("inner"))
    return {
        "system": Gadget(os.system, command),
        "exec": Gadget(exec, f"open({str(canary)!r}, 'w')"),
        "eval": Gadget(eval, f"open({str(canary)!r}, 'w')"),
        "open": Gadget(open, str(canary), "w"),
        "pickle": Gadget(pickle.loads, pickle.dumps(Gadget(os.system, command))),
        "torch.load": Gadget(functools.partial(torch.load, weights_only=False), str(inner)),
        "network": nn.Linear(2, 2),  # a whole pickled module: harmless, but it cannot be told from one that is not
    }


@pytest.mark.parametrize("forced", [False, True], ids=["", "torch_told_to_run_code"])
@pytest.mark.parametrize("where", ["alone", "beside_the_weights", "plain_pickle"])
@pytest.mark.parametrize("kind", ["system", "exec", "eval", "open", "pickle", "torch.load", "network"])
def test_code_in_a_file_is_not_run(network, tmp_path, monkeypatch, kind, where, forced):
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary, path = tmp_path / "canary", tmp_path / "teacher.pth"
    gadget = gadgets(canary)[kind]
    if where == "plain_pickle":
        path.write_bytes(pickle.dumps(gadget, protocol=2))
    else:
        save(gadget if where == "alone" else {"state_dict": network.state_dict(), "extra": gadget}, path)
    expect_error(path, "was not opened, because loading it could run code|is damaged or no PyTorch file")
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["system", "exec", "eval", "open", "pickle", "torch.load"])
def test_the_gadgets_of_these_tests_do_run_where_nobody_is_careful(tmp_path, kind):
    save(gadgets(tmp_path / "canary")[kind], tmp_path / "teacher.pth")
    torch.load(tmp_path / "teacher.pth", weights_only=False)
    assert (tmp_path / "canary").exists()


# -- digest ---------------------------------------------------------------------------------------------------


def test_the_digest_sees_one_bit_of_any_parameter_or_buffer(network):
    first = digest(network)
    assert digest(network) == first
    for tensor in network.state_dict().values():
        flat = tensor.view(-1)
        before = flat[0].clone()
        flat[0] = torch.nextafter(before, before + 1) if tensor.is_floating_point() else before + 1
        assert digest(network) != first
        flat[0] = before
    assert digest(network) == first


def test_the_digest_sees_names_shapes_and_types():
    def holder(name, tensor):
        module = nn.Module()
        module.register_buffer(name, tensor)
        return module

    variants = [
        holder("a", torch.zeros(4)), holder("b", torch.zeros(4)), holder("a", torch.zeros(2, 2)),
        holder("a", torch.zeros(4, dtype=torch.int32)), holder("a", torch.zeros(())), nn.Module(),
    ]  # fmt: skip
    assert len({digest(variant) for variant in variants}) == len(variants)


def test_the_file_holds_the_tensors_under_the_networks_own_names(network, tmp_path):
    save_weights(network, tmp_path / "s.safetensors", {})
    stored = load_file(tmp_path / "s.safetensors")
    assert set(stored) == set(network.state_dict())
