"""A run is built again as it was trained: the same student on the same data."""

import json
import logging

import pytest
import torch
import yaml

from kdlab.errors import IntegrityError, UsageError
from kdlab.methods import LogitMatching
from kdlab.models import MNISTPerceptron
from kdlab.models.ensemble import NetworkEnsemble
from kdlab.verbs.loaded import load_config, load_run

RUN = "runs/digits/logit_matching-seed0"


def accuracy(network, data):
    split = data.test_split
    mean, std = data.mean[0], data.std[0]
    with torch.no_grad():
        answer = network((split.images / 255 - mean) / std).argmax(dim=1)
    return (answer == split.clean_labels).double().mean().item()


def test_a_loaded_run_has_the_accuracy_that_its_result_states(workplace):
    run = load_run(RUN)
    result = json.loads((workplace / RUN / "result.json").read_text())
    assert run.name == "logit_matching-seed0"
    assert type(run.method) is LogitMatching
    assert not run.method.student.training
    assert run.card["epoch"] == result["protocol"]["selected_epoch"]
    assert run.data.label_noise == 0.1
    assert run.config["seed_everything"] == 0
    assert accuracy(run.method.student, run.data) == pytest.approx(result["student"]["test"]["accuracy"], abs=1e-6)
    assert accuracy(run.teacher().network, run.data) == pytest.approx(result["teacher"]["test"]["accuracy"], abs=1e-6)


def test_an_ensemble_is_loaded_with_all_its_members_and_their_shared_teacher(workplace):
    run = load_run("runs/digits/sub_student_ensemble-seed0")
    result = json.loads((run.folder.path / "result.json").read_text())
    assert type(run.method.student) is NetworkEnsemble
    assert accuracy(run.method.student, run.data) == pytest.approx(result["student"]["test"]["accuracy"], abs=1e-6)
    assert run.teacher() is run.method.teacher


def test_a_config_is_built_with_its_parts_and_no_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # configs of the package are found from anywhere
    run = load_config("digits/logit_matching")
    assert (run.name, run.card, run.folder) == ("logit_matching", {}, None)
    assert type(run.method.student) is MNISTPerceptron
    assert sum(p.numel() for p in run.method.student.parameters()) == 2410  # 64 x 32 + 32 + 32 x 10 + 10
    assert not list(tmp_path.iterdir())


def test_a_run_needs_no_device_or_logger_of_its_training(copied):
    folder = copied("independent-seed0")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["trainer"] |= {"accelerator": "gpu", "devices": 8, "strategy": "ddp", "num_nodes": 2, "logger": [
        {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "/nowhere"}}]}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert load_run(folder).method.teacher is None


def test_a_run_without_a_teacher_has_none(workplace):
    assert load_run("runs/digits/independent-seed0").teacher() is None


def test_a_teacher_is_found_from_another_folder_beside_the_run(workplace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher = load_run(workplace / RUN).teacher()
    assert teacher.checkpoint == str(workplace.resolve() / "runs/digits/teacher-seed0/student.safetensors")


def test_a_teacher_that_is_gone_is_an_error_or_said_and_done_without(copied, tmp_path, monkeypatch, caplog):
    folder = copied("logit_matching-seed0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/digits/teacher-seed0").mkdir(parents=True)
    run = load_run(folder)
    with pytest.raises(IntegrityError, match=r"checkpoint runs/digits/teacher-seed0/student\.safetensors"):
        run.teacher()
    with caplog.at_level(logging.WARNING, "kdlab"):
        assert run.teacher(required=False) is None
    assert (
        "logit_matching-seed0 is looked at without its teacher: teacher: checkpoint runs/digits/teacher" in caplog.text
    )


def test_a_folder_without_a_config_is_no_run(tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path} is no run: it holds no config.yaml; give a folder that `fit`"):
        load_run(tmp_path)


def test_a_run_that_has_not_ended_is_answered_with_how_to_continue_it(copied):
    folder = copied("independent-seed0")
    (folder / "student.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"has no student.safetensors: it has not ended; continue .*last.ckpt"):
        load_run(folder)


def test_damaged_weights_are_an_error(copied):
    path = copied("independent-seed0") / "student.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="is damaged: its tensors are not the ones that were written"):
        load_run(path.parent)


def test_weights_of_another_architecture_are_an_error(copied):
    folder = copied("independent-seed0")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["init_args"]["student"] = {"class_path": "kdlab.models.DigitsConv"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(IntegrityError, match="does not fit DigitsConv"):
        load_run(folder)


def test_an_edited_config_is_said(copied, caplog):
    folder = copied("independent-seed0")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["init_args"]["label_noise"] = 0.3
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with caplog.at_level(logging.WARNING, "kdlab"):
        assert load_run(folder).data.label_noise == 0.3
    assert "was trained with another config: data.label_noise was 0.1, is 0.3" in caplog.text


def test_the_data_may_have_moved(copied, tmp_path):
    assert load_run(copied("independent-seed0"), data_dir=str(tmp_path / "new")).data.data_dir == str(tmp_path / "new")


def test_a_file_of_weights_in_a_run_is_the_one_that_is_loaded(copied):
    folder = copied("logit_matching-seed0")
    final = load_run(folder)
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    content["state_dict"]["student.classifier.bias"] += 1
    torch.save(content, folder / "checkpoints" / "moved.ckpt")
    moved = load_run(folder / "checkpoints" / "moved.ckpt")
    assert torch.equal(moved.method.student.classifier.bias, content["state_dict"]["student.classifier.bias"])
    assert not torch.equal(moved.method.student.classifier.bias, final.method.student.classifier.bias)
    assert (moved.name, moved.is_final) == ("logit_matching-seed0/checkpoints/moved.ckpt", False)
    assert (final.name, final.is_final) == ("logit_matching-seed0", True)
    assert load_run(folder / "student.safetensors").is_final
    assert load_run(folder / "checkpoints" / "best.safetensors").card["epoch"] == final.card["epoch"]


def test_a_checkpoint_of_a_run_that_has_not_ended_may_be_named(copied):
    folder = copied("independent-seed0")
    (folder / "student.safetensors").unlink()
    assert not load_run(folder / "checkpoints" / "last.ckpt").is_final


def test_a_file_that_is_no_weights_of_a_run_is_an_error(copied, tmp_path):
    (tmp_path / "lonely.ckpt").write_bytes(b"")
    for path in (tmp_path / "lonely.ckpt", copied("independent-seed0") / "result.json"):
        with pytest.raises(UsageError, match=rf"{path.name} is no file of weights .* in a run's folder"):
            load_run(path)
