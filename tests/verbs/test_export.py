"""Exported files, read by the lines of docs/export.md, against the original network."""

import csv
import hashlib
import json
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from torch import nn
from torch.nn.utils import prune

from kdlab.cli import main
from kdlab.errors import NumericalError, UsageError
from kdlab.verbs import export_formats
from kdlab.verbs.export_speed import Latency, compare_speed, in_words
from kdlab.verbs.exporting import compare, copy_without_hooks, export
from kdlab.verbs.loaded import load_run
from kdlab.weights import digest, load_weights

RUN = "runs/digits/logit_matching-seed0"
FAST = ["--seconds", "0.02", "--batch_size", "3"]
FILES = {"safetensors": "student.safetensors", "torch_export": "student.pt2", "onnx": "student.onnx"}
DOCS = Path(__file__).parents[2] / "docs" / "export.md"


def need(file_format):
    if file_format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason=f"{package} is of the extra kdlab[export]")


@pytest.fixture(scope="module")
def exported(finished_runs, tmp_path_factory):
    """`exported(format)`: the folder with the file of that format, made once."""
    folder, made = tmp_path_factory.mktemp("export"), set()

    def export(file_format):
        need(file_format)
        out = folder / FILES[file_format]
        if file_format not in made:
            run = str(finished_runs / RUN)
            assert main(["export", run, "--format", file_format, "--out", str(out), *FAST]) == 0
            made.add(file_format)
        return folder

    return export


def snippet(file_format):
    """The python block of the docs that reads this file."""
    (found,) = (code for code in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
                if FILES[file_format] in code)  # fmt: skip
    return found


def original(workplace):
    """The run, its test images as bytes, and the logits of its student."""
    run = load_run(workplace / RUN)
    pixels = run.data.test_split.images
    with torch.no_grad():
        return run, pixels, run.method.student((pixels / 255 - run.data.mean[0]) / run.data.std[0])


@pytest.mark.parametrize("file_format", FILES)
def test_the_lines_of_the_docs_give_the_answers_of_the_original(file_format, exported, workplace, monkeypatch):
    monkeypatch.chdir(exported(file_format))
    _, pixels, logits = original(workplace)
    for images in (1, 5, 360):
        names = {"pixels": pixels[:images].numpy()}
        exec(compile(snippet(file_format), str(DOCS), "exec"), names)  # noqa: S102 (our own documentation)
        torch.testing.assert_close(torch.from_numpy(names["logits"]), logits[:images], rtol=1e-4, atol=1e-4)


def metadata(file_format, path):
    if file_format == "safetensors":
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["kdlab"])
    if file_format == "torch_export":
        extra = {"kdlab.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["kdlab.json"])
    import onnx

    return json.loads({prop.key: prop.value for prop in onnx.load(path).metadata_props}["kdlab"])


@pytest.mark.parametrize("file_format", FILES)
def test_the_metadata_say_how_to_feed_and_read_the_network(file_format, exported, workplace):
    card = metadata(file_format, exported(file_format) / FILES[file_format])
    run, _, _ = original(workplace)
    assert card["network"] == "MNISTPerceptron"
    assert card["class_names"] == list("0123456789")
    assert card["weights_sha256"] == digest(run.method.student)
    how = card["preprocessing"]
    assert how["image_shape"] == [1, 8, 8]
    assert (how["mean"], how["std"]) == (list(run.data.mean), list(run.data.std))
    seen = (torch.tensor([0.0, 1.0]) - run.data.mean[0]) / run.data.std[0]  # of black and white pixels
    assert how["input_range"] == pytest.approx(seen.tolist())
    assert how["pixel_range"] == [0, 255]


def test_an_onnx_file_is_one_file_with_a_free_batch_size(exported):
    folder = exported("onnx")
    import onnx

    assert not list(folder.glob("*.data"))
    graph = onnx.load(folder / "student.onnx", load_external_data=False).graph
    assert not any(tensor.external_data for tensor in graph.initializer)
    (image,) = graph.input
    sizes = image.type.tensor_type.shape.dim
    assert sizes[0].dim_param
    assert [size.dim_value for size in sizes[1:]] == [1, 8, 8]


def test_an_ensemble_is_exported_as_one_network(workplace, tmp_path, capsys):
    run, out = "runs/digits/sub_student_ensemble-seed0", tmp_path / "student.pt2"
    assert main(["export", run, "--format", "torch_export", "--out", str(out), *FAST]) == 0
    assert "same class on 360" in capsys.readouterr().out


def test_what_was_exported_stands_in_the_result_and_the_loggers_of_the_run(copied):
    folder = copied("independent-seed0")
    content = yaml.safe_load((folder / "config.yaml").read_text())
    tracked = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder / "tracked")}}
    (folder / "config.yaml").write_text(
        yaml.safe_dump(content | {"trainer": {**content["trainer"], "logger": tracked}})
    )
    rows = (folder / "metrics.csv").read_bytes()
    for file_format in ("safetensors", "torch_export"):
        assert main(["export", str(folder), "--format", file_format, *FAST]) == 0
    found = json.loads((folder / "result.json").read_text())["export"]
    path = folder / "export" / "student.pt2"
    assert found["torch_export"]["size_bytes"] == path.stat().st_size
    assert found["torch_export"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["torch_export"]["max_difference"] < 1e-4
    assert set(found["torch_export"]["latency"]) == {"torch.export", "eager"}
    assert found["safetensors"]["latency"] == {}  # the first export's figures stay beside the second's
    (row,) = csv.DictReader((folder / "tracked" / "lightning_logs" / "version_1" / "metrics.csv").open())
    p50 = found["torch_export"]["latency"]["eager"]["batch_1"]["latency_ms_p50"]
    assert float(row["export/torch_export/latency/eager/batch_1/latency_ms_p50"]) == p50
    assert (folder / "metrics.csv").read_bytes() == rows  # what differs from time to time is no metric of the training


def test_the_speed_of_the_engine_stands_beside_eager(exported, workplace):
    path = exported("onnx") / "student.onnx"
    run, pixels, _ = original(workplace)
    found, undefined = compare_speed(
        run.method.student, export_formats.ONNX(), path, pixels.float(), batch_sizes=[1, 3], seconds=0.02
    )
    assert undefined == {}
    assert [(row.engine, row.batch_size) for row in found] == [
        ("onnxruntime", 1), ("eager", 1), ("onnxruntime", 3), ("eager", 3)
    ]  # fmt: skip
    assert all(0 < row.latency_ms_p50 < 1000 and row.latency_n >= 3 for row in found)


def test_latencies_are_shown_side_by_side():
    rows = [Latency("onnxruntime", 1, 0.5, 0.6, None, 0.05, 40), Latency("eager", 1, 1.25, None, None, 0.1, 20)]
    (line,) = in_words(rows)
    assert line.startswith("batch 1: 0.500 ms in onnxruntime (spread 0.050), 1.250 ms eager (spread 0.100), p50")


@pytest.mark.parametrize("file_format", FILES)
def test_a_record_beside_the_file_says_how_close_how_fast_and_by_what(file_format, exported):
    path = exported(file_format) / FILES[file_format]
    record = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert (record["file"], record["size_bytes"]) == (path.name, path.stat().st_size)
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["parity"]["images"] == record["parity"]["same_class"] == 360
    assert 0 <= record["parity"]["max_difference"] <= record["parity"]["tolerance"] == 1e-4
    own = metadata(file_format, path)
    own.pop("sha256", None)  # of the tensors, in a safetensors file's card
    assert record["metadata"] == own
    assert record["environment"]["threads"] == 1
    assert record["environment"]["versions"]["torch"] == version("torch")
    timed = [row["batch_size"] for row in record["latency"]]
    if file_format == "safetensors":
        nothing = {"latency": "the file is the network in eager mode: there is nothing to compare"}
        assert (timed, record["undefined"]) == ([], nothing)
    else:
        assert (timed, record["undefined"]) == ([1, 1, 3, 3], {})
    if file_format != "onnx":
        assert record["opset"] is None
        return
    import onnx

    (opset,) = (entry.version for entry in onnx.load(path).opset_import if entry.domain in ("", "ai.onnx"))
    assert record["opset"] == opset >= 18
    assert record["environment"]["versions"]["onnxruntime"] == version("onnxruntime")


def test_a_batch_too_large_to_time_is_said_and_loses_nothing(copied, capsys):
    folder = copied("logit_matching-seed0")
    huge = str(10**15)  # 8 petabytes of positions alone
    arguments = ["export", str(folder), "--format", "torch_export", "--seconds", "0.02"]
    assert main([*arguments, "--batch_size", huge]) == 0
    shown = capsys.readouterr()
    assert f"latency of batch {huge} was not measured" in shown.err
    assert "give a smaller --batch_size" in shown.err
    assert "batch 1: " in shown.out
    record = json.loads((folder / "export" / "student.pt2.json").read_text())
    assert [row["batch_size"] for row in record["latency"]] == [1, 1]
    assert list(record["undefined"]) == [f"latency of batch {huge}"]
    assert torch.export.load(folder / "export" / "student.pt2")


@pytest.mark.parametrize("kind", [nn.utils.spectral_norm, nn.utils.weight_norm, "prune"])
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_a_hook_computes_are_refused_with_the_remedy(kind, workplace, tmp_path):
    run, layer = load_run(RUN), load_run(RUN).method.student.classifier
    if kind == "prune":
        prune.l1_unstructured(layer, "weight", amount=0.5)
        remedy = "torch.nn.utils.prune.remove(layer, 'weight')"
    else:
        kind(layer)
        remedy = f"torch.nn.utils.remove_{kind.__name__}(layer, 'weight')"
    run.method.student.classifier = layer
    out = tmp_path / "student.safetensors"
    with pytest.raises(UsageError, match="computes its weight in a hook before each pass, which no file") as caught:
        export(run, export_formats.Safetensors(), out, 1e-4)
    assert "layer classifier of MNISTPerceptron" in str(caught.value)
    assert remedy in str(caught.value)
    assert not out.exists()


def test_parity_is_with_the_student_itself_and_not_with_a_copy_that_lost_its_hooks(workplace, tmp_path):
    run, out = load_run(RUN), tmp_path / "student.safetensors"
    run.method.student.classifier.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    with pytest.raises(NumericalError, match="Look for hooks, which no file holds"):
        export(run, export_formats.Safetensors(), out, 1e-4)
    assert not out.exists()


def test_weights_made_plain_again_are_exported(workplace, tmp_path):
    run, out = load_run(RUN), tmp_path / "student.safetensors"
    prune.l1_unstructured(run.method.student.classifier, "weight", amount=0.5)
    prune.remove(run.method.student.classifier, "weight")
    assert export(run, export_formats.Safetensors(), out, 1e-4).max_difference == 0
    again = load_run(RUN).method.student
    load_weights(again, out)
    assert (again.classifier.weight == 0).sum() == 160  # half of 32 x 10


def test_a_network_that_cannot_be_copied_is_one_line():
    network = nn.Linear(2, 2)
    network.scaled = network.weight * 2
    with pytest.raises(UsageError, match="Linear cannot be copied, as exporting needs: Only Tensors created explicit"):
        copy_without_hooks(network)


def test_a_checkpoint_that_is_named_is_the_one_that_is_exported(copied, monkeypatch):
    folder = copied("logit_matching-seed0")
    last = folder / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["state_dict"]["student.classifier.bias"] += 1
    (folder / "checkpoints" / "moved.ckpt").unlink(missing_ok=True)
    torch.save(content, folder / "checkpoints" / "moved.ckpt")
    assert main(["export", str(folder / "checkpoints" / "moved.ckpt"), "--format", "safetensors"]) == 0
    out = folder / "export" / "moved.safetensors"
    network = load_run(folder).method.student
    load_weights(network, out)
    assert torch.equal(network.classifier.bias, content["state_dict"]["student.classifier.bias"])
    assert json.loads((folder / "export" / "moved.safetensors.json").read_text())["metadata"]["run"] == (
        "logit_matching-seed0/checkpoints/moved.ckpt"
    )


def test_by_default_the_file_is_in_the_run_and_is_not_replaced(copied, capsys, the_error):
    folder = copied("logit_matching-seed0")
    student = (folder / "student.safetensors").read_bytes()
    out = folder / "export" / "student.safetensors"
    assert main(["export", str(folder), "--format", "safetensors"]) == 0
    shown = capsys.readouterr().out
    assert f"{out}: {out.stat().st_size:,} bytes" in shown
    assert "360 test images: max difference of a logit 0.00e+00 (tolerance 0.0001), same class on 360" in shown
    assert "eager" not in shown  # it is the same network: there is nothing to time
    out.write_bytes(b"mine")
    assert main(["export", str(folder), "--format", "safetensors"]) == 2
    assert f"{out} is there already; give --overwrite to replace it, or another --out" in the_error()
    assert out.read_bytes() == b"mine"
    assert main(["export", str(folder), "--format", "safetensors", "--overwrite"]) == 0
    assert out.read_bytes() != b"mine"
    assert (folder / "student.safetensors").read_bytes() == student


def test_a_file_that_answers_otherwise_is_not_kept(copied, monkeypatch, the_error):
    folder = copied("logit_matching-seed0")
    write = export_formats.Safetensors.write

    def wrong(self, network, image, description, path):
        with torch.no_grad():
            network.classifier.bias[3] += 0.01
            write(self, network, image, description, path)
            network.classifier.bias[3] -= 0.01

    monkeypatch.setattr(export_formats.Safetensors, "write", wrong)
    before = sorted(folder.rglob("*"))
    assert main(["export", str(folder), "--format", "safetensors", "--tolerance", "0.005"]) == 5
    message = the_error()
    assert re.search(
        r"MNISTPerceptron differs from the original by up to (1\.00e-02|9\.9\de-03) on 360 test images", message
    )
    assert "the tolerance is 0.005; nothing was written" in message
    assert sorted(folder.rglob("*")) == before
    assert main(["export", str(folder), "--format", "safetensors", "--tolerance", "0.02"]) == 0


def test_parity_is_the_largest_difference_over_all_batches_and_nan_is_no_parity():
    images = torch.arange(40.0).view(40, 1)

    def original(batch):
        return torch.cat([batch, -batch], dim=1)

    def off_at(position, amount):
        def answer(batch):
            logits = original(batch)
            logits[batch[:, 0] == position, 1] += amount
            return logits

        return answer

    found = compare(original, off_at(39, 0.25), images)
    assert (found.images, found.max_difference, found.same_class) == (40, 0.25, 40)
    assert compare(original, off_at(3, 10.0), images).same_class == 39  # -3 + 10 is above 3
    assert not compare(original, off_at(20, float("nan")), images).max_difference <= 1e9


def test_weights_come_from_the_file_and_not_from_the_network(workplace, tmp_path):
    network = load_run(RUN).method.student
    safetensors = export_formats.Safetensors()
    safetensors.write(network, torch.zeros(2, 1, 8, 8), {"a": 1}, tmp_path / "a.safetensors")
    read = safetensors.read(tmp_path / "a.safetensors", network)
    assert digest(read) == digest(network)
    assert read is not network


def test_without_the_packages_the_extra_is_named(workplace, monkeypatch, the_error):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", RUN, "--format", "onnx", "--out", "unused.onnx"]) == 2
    message = "export to ONNX needs the package onnx; pip install 'kdlab[export]'"
    assert message in the_error()


def test_a_network_that_a_format_cannot_hold_is_one_line(copied, monkeypatch, the_error):
    def refuse(*_, **__):
        raise RuntimeError("no decomposition of aten::strange\nmany more lines")

    monkeypatch.setattr(torch.export, "export", refuse)
    folder = copied("logit_matching-seed0")
    assert main(["export", str(folder), "--format", "torch_export"]) == 2
    assert "MNISTPerceptron cannot be exported to .pt2: no decomposition of aten::strange; try another" in the_error()
    assert not (folder / "export").exists()


def test_wrong_places_are_one_line(workplace, tmp_path, the_error):
    assert main(["export", RUN, "--format", "onnx", "--out", "student.pt2"]) == 2
    assert "--out is student.pt2, but readers know onnx by the ending .onnx; add it" in the_error()
    assert main(["export", str(tmp_path), "--format", "safetensors"]) == 2
    assert f"{tmp_path} is no run" in the_error()
    assert main(["export", "digits/logit_matching", "--format", "safetensors"]) == 2
    assert "digits/logit_matching is no run: it holds no config.yaml" in the_error()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    assert main(["export", RUN, "--format", "onnx", "--out", str(tmp_path / "file" / "x.onnx")]) == 2
    assert f"cannot be written: {tmp_path}/file is no folder; choose another file" in the_error()
