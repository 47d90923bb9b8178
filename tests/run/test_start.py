"""Which run is continued, and whose weights are looked at."""

import pytest
import torch
import yaml
from torch import nn

from kdlab.errors import BusyError, IntegrityError, UsageError
from kdlab.run.folder import RunFolder
from kdlab.run.start import load_student, run_to_continue
from kdlab.weights import save_weights

CONFIG = {"seed_everything": 0, "model": {"class_path": "Own"}, "data": {}, "trainer": {"max_epochs": 3}}


def make_run(path, seed=0):
    folder = RunFolder(path)
    folder.last.parent.mkdir(parents=True)
    folder.last.touch()
    folder.config.write_text(yaml.safe_dump({**CONFIG, "seed_everything": seed, "name": "run"}))
    return folder


def filled(number):
    network = nn.Linear(1, 1)
    nn.init.constant_(network.weight, number)
    return network


def test_last_is_the_newest_run_of_the_name_and_a_file_names_its_own(tmp_path):
    first, second = make_run(tmp_path / "a" / "run"), make_run(tmp_path / "a" / "run-2")
    assert run_to_continue("last", first.path, CONFIG).path == second.path
    assert run_to_continue(str(first.last), tmp_path / "b" / "other", CONFIG).path == first.path


def test_what_does_not_decide_the_numbers_may_differ(tmp_path):
    run = make_run(tmp_path / "run")
    assert run_to_continue("last", run.path, {**CONFIG, "trainer": {"max_epochs": 3, "devices": 2}}).path == run.path


@pytest.mark.parametrize(
    ("ckpt_path", "config", "message"),
    [
        ("nowhere.ckpt", CONFIG, "ckpt_path is nowhere.ckpt, but there is no such file; give a checkpoint of a run"),
        ("last", {**CONFIG, "trainer": {"max_epochs": 4}}, "another config: trainer.max_epochs was 3, is 4. Restore"),
        ("last", {**CONFIG, "seed_everything": 1}, "was started with another config: seed_everything was 0, is 1"),
    ],
)
def test_a_run_that_cannot_be_continued_is_refused(tmp_path, ckpt_path, config, message):
    run = make_run(tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        run_to_continue(ckpt_path, run.path, config)


def test_a_checkpoint_without_a_run_around_it_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    run.config.unlink()
    with pytest.raises(UsageError, match=r"run holds no config\.yaml, so it is no run that can be continued"):
        run_to_continue(str(run.last), run.path, CONFIG)


def test_the_config_of_a_run_names_its_own_student_before_the_newest_of_the_name(tmp_path):
    here, newer = make_run(tmp_path / "run"), make_run(tmp_path / "run-2")
    for folder, number in ((here, 1.0), (newer, 2.0)):
        save_weights(filled(number), folder.student, {})
    network = nn.Linear(1, 1)
    assert load_student(network, None, here, here.path, CONFIG) == here.student
    assert network.weight.item() == 1.0
    assert load_student(network, None, RunFolder(tmp_path / "configs"), here.path, CONFIG) == newer.student
    assert network.weight.item() == 2.0


@pytest.mark.parametrize("ckpt_path", ["best", "last", "file"])
def test_other_weights_of_the_run_are_loaded_where_they_are_named(tmp_path, ckpt_path):
    run = make_run(tmp_path / "run")
    path = {"best": run.best, "last": run.last, "file": tmp_path / "own.safetensors"}[ckpt_path]
    if ckpt_path == "last":
        torch.save({"state_dict": {f"student.{k}": v for k, v in filled(3.0).state_dict().items()}}, path)
    else:
        save_weights(filled(3.0), path, {})
    network = nn.Linear(1, 1)
    assert load_student(network, str(path) if ckpt_path == "file" else ckpt_path, run, run.path, CONFIG) == path
    assert network.weight.item() == 3.0


def test_weights_that_are_not_there_are_said_with_the_way_to_some(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(IntegrityError, match=r"student.safetensors does not exist.*Train it with `fit`, or name other"):
        load_student(nn.Linear(1, 1), None, run, run.path, CONFIG)


def test_weights_of_another_config_are_said(tmp_path, caplog):
    run = make_run(tmp_path / "run")
    trained = {"model": CONFIG["model"], "data": {"init_args": {}}, "seed_everything": 7, "trainer": {"max_epochs": 3}}
    save_weights(filled(1.0), run.student, {"config": trained, "epoch": 1})
    with caplog.at_level("INFO"):
        load_student(nn.Linear(1, 1), None, run, run.path, CONFIG)
    assert f"{run.student} was trained with another config: seed_everything was 7, is 0" in caplog.text
    assert f"student of epoch 2 from {run.student}" in caplog.text


def test_a_run_that_is_still_in_training_has_no_student_yet(tmp_path):
    run = make_run(tmp_path / "run")
    run.claim()
    try:
        with pytest.raises(BusyError, match=r"run is still in training; wait for its end, or give --ckpt_path best"):
            load_student(nn.Linear(1, 1), None, run, tmp_path / "elsewhere", CONFIG)
    finally:
        run.release()
    with pytest.raises(IntegrityError, match="Train it with `fit`"):
        load_student(nn.Linear(1, 1), None, run, tmp_path / "elsewhere", CONFIG)
