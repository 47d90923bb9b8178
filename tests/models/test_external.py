"""Networks of timm and torchvision: built by name, fitted to the data, and refused in one line where that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdlab.errors import UsageError
from kdlab.models import TimmModel, TorchvisionModel, download

Wrapper = type[TimmModel] | type[TorchvisionModel]
BOTH = pytest.mark.parametrize("wrapper", [TimmModel, TorchvisionModel])
CLOSED_PORT = "http://127.0.0.1:9"


@BOTH
def test_training_step_reaches_every_parameter_of_a_named_network(wrapper: Wrapper):
    torch.manual_seed(0)
    network = wrapper("resnet18", num_classes=7, in_channels=2, small_images=True)
    logits = network(torch.randn(2, 2, 16, 16))
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@BOTH
@pytest.mark.parametrize(("small_images", "side"), [(False, 8), (True, 32)])
def test_small_images_keeps_the_full_size_in_the_first_stage(wrapper: Wrapper, small_images: bool, side: int):
    network = wrapper("resnet18", small_images=small_images).eval()
    sizes: list[tuple[int, ...]] = []
    network.get_submodule("network.layer1").register_forward_hook(
        lambda module, args, output: sizes.append(tuple(output.shape[2:]))
    )
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert sizes == [(side, side)]


@pytest.mark.parametrize(
    ("wrapper", "name"),
    [
        (TorchvisionModel, "shufflenet_v2_x0_5"),
        (TorchvisionModel, "mobilenet_v3_small"),
        (TorchvisionModel, "regnet_y_400mf"),
        (TimmModel, "resnet18d"),
        (TimmModel, "mobilenetv3_small_050"),
    ],
)
def test_small_images_works_for_other_families(wrapper: Wrapper, name: str):
    plain, small = (wrapper(name, 5, 1, small_images=small_images) for small_images in (False, True))
    first = next(module for module in small.modules() if isinstance(module, nn.Conv2d))
    assert (first.kernel_size, first.stride, first.in_channels) == ((3, 3), (1, 1), 1)
    assert sum(isinstance(module, nn.MaxPool2d) for module in small.modules()) == 0
    assert len(list(plain.parameters())) == len(list(small.parameters()))
    with torch.no_grad():
        assert small.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("wrapper", "name", "reason"),
    [
        (TimmModel, "dla34", "already has stride 1"),
        (TorchvisionModel, "squeezenet1_1", r"padding \(0, 0\)"),
        (TimmModel, "vit_tiny_patch16_224", "16x16 with stride 16"),
        (TimmModel, "nf_resnet26", "ScaledStdConv2d"),
        (TimmModel, "resnetblur18", "another stride"),
        (TimmModel, "repvgg_a0", "side by side"),
        (TimmModel, "convnext_atto", "4x4 with stride 4"),
    ],
)
def test_small_images_is_refused_where_the_stem_is_another(wrapper: Wrapper, name: str, reason: str):
    with pytest.raises(UsageError, match=f"small_images is true but {name} .*{reason}.*small_images: false"):
        wrapper(name, small_images=True)


def test_first_convolution_with_other_channels_keeps_its_answer_to_grey_images():
    from kdlab.models.stem import set_in_channels

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=True))
    grey = torch.randn(1, 1, 5, 5)
    before = network(grey.expand(-1, 3, -1, -1))
    set_in_channels(network, 1)
    torch.testing.assert_close(network(grey), before)


@BOTH
def test_unknown_name_lists_close_names(wrapper: Wrapper):
    with pytest.raises(UsageError, match=r"no classifier called 'resnet81'; did you mean .*resnet18"):
        wrapper("resnet81")
    with pytest.raises(UsageError, match="no classifier called 'zzzqqq'; see the list"):
        wrapper("zzzqqq")


@BOTH
def test_unknown_option_is_refused_by_name(wrapper: Wrapper):
    with pytest.raises(UsageError, match=r"resnet18 does not take the options .*'bogus'"):
        wrapper("resnet18", options={"bogus": 1})


def test_transformer_of_a_fixed_size_names_the_option_that_changes_it():
    arguments = {"num_classes": 5, "in_channels": 1}
    network = TimmModel("vit_tiny_patch16_224", **arguments)
    with pytest.raises(UsageError, match=r"takes images of \[224, 224\] pixels but got \[8, 8\].*img_size"):
        network(torch.zeros(1, 1, 8, 8))
    fitting = TimmModel("vit_tiny_patch16_224", **arguments, options={"img_size": 8, "patch_size": 2, "depth": 1})
    assert fitting(torch.zeros(1, 1, 8, 8)).shape == (1, 5)


def test_network_with_auxiliary_logits_is_refused_with_the_option_that_removes_them():
    with pytest.raises(UsageError, match=r"auxiliary logits.*aux_logits: false"):
        TorchvisionModel("googlenet", options={"init_weights": False})
    TorchvisionModel("googlenet", options={"init_weights": False, "aux_logits": False})


def test_timm_weights_without_network_are_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", CLOSED_PORT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"pretrained weights of resnet18 could not be had.*pretrained: false"):
        TimmModel("resnet18", pretrained=True)
    assert time.monotonic() - start < 5  # the client's own retries take up to 46 s
    assert not constants.HF_HUB_OFFLINE


def test_torchvision_weights_without_network_are_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(download, "unreachable_reason", lambda url: "no route")
    with pytest.raises(UsageError, match=r"DEFAULT of resnet18 cannot be downloaded.*no route.*weights: null"):
        TorchvisionModel("resnet18", weights="DEFAULT")
    with pytest.raises(UsageError, match=r"no weights called BEST.*IMAGENET1K_V1"):
        TorchvisionModel("resnet18", weights="BEST")


@pytest.fixture
def published_shufflenet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, torch.Tensor]:
    """Random weights where torch.hub would keep the downloaded ones."""
    import torchvision.models as zoo

    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = zoo.shufflenet_v2_x0_5().state_dict()
    file = Path(zoo.ShuffleNet_V2_X0_5_Weights.DEFAULT.url).name
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return state


def test_torchvision_weights_in_the_cache_are_fitted_to_the_data(published_shufflenet: dict[str, torch.Tensor]):
    network = TorchvisionModel("shufflenet_v2_x0_5", 5, 1, weights="DEFAULT", small_images=True).network.state_dict()
    assert network["fc.weight"].shape == (5, 1024)
    stem = published_shufflenet["conv1.0.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(network["conv1.0.weight"], stem)
    assert torch.equal(network["conv5.0.weight"], published_shufflenet["conv5.0.weight"])


def test_pretrained_large_kernel_keeps_its_middle_on_small_images():
    from kdlab.models.stem import adapt_to_small_images

    network = nn.Sequential(nn.Conv2d(1, 2, 7, stride=2, padding=3), nn.MaxPool2d(3, stride=2))
    kernel = network[0].weight.detach().clone()
    adapt_to_small_images(network, "net", pretrained=True)
    assert torch.equal(network[0].weight, kernel[:, :, 2:5, 2:5])
    assert isinstance(network[1], nn.Identity)


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A local server that answers every request with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_server_that_answers_anything_counts_as_reachable(refusing_server: str):
    assert download.unreachable_reason(refusing_server) is None


def test_closed_port_counts_as_unreachable_with_a_reason():
    assert "refused" in (download.unreachable_reason(CLOSED_PORT) or "")
