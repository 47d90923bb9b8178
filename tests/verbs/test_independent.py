"""Which independent student a run is compared with when nobody says."""

import json

import pytest
import yaml

from kdlab.verbs.independent import find_independent


@pytest.fixture
def write(tmp_path):
    def write_run(name, method="IndependentStudent", seed=0, network="A", **protocol):
        folder = tmp_path / name
        folder.mkdir()
        result = {"method": method, "seed": seed, "student": {"network": network, "parameters": 10},
                  "protocol": {"name": "Digits", "fingerprint": "f", **protocol}}  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return write_run


def test_it_has_the_same_network_and_data_and_the_seed_if_possible(write):
    run = write("distilled", "LogitMatching", seed=1)
    write("a-other-network", network="B", seed=1)
    write("a-other-data", seed=1, fingerprint="g")
    write("a-other-noise", seed=1, label_noise=0.5)
    write("a-other-method", "HintTransfer", seed=1)
    assert find_independent(run) is None
    first = write("independent-seed0")
    write("independent-seed2", seed=2)
    assert find_independent(run) == first
    same_seed = write("independent-seed1", seed=1)
    assert find_independent(run) == same_seed


def test_of_several_it_is_the_one_that_was_trained_most_alike(write, caplog):
    def config(folder, momentum, epochs):
        arguments = {"optimizer": {"class_path": "SGD", "init_args": {"momentum": momentum}}}
        told = {"model": {"init_args": arguments}, "data": {"init_args": {}}, "trainer": {"max_epochs": epochs}}
        (folder / "config.yaml").write_text(yaml.safe_dump(told))
        return folder

    run = config(write("distilled", "LogitMatching", seed=1), 0.9, 15)
    far = config(write("a", seed=1), 2.0, 1)
    near = config(write("b", seed=1), 0.9, 10)
    assert find_independent(run) == near
    assert "it was not trained alike: trainer.max_epochs was 15, is 10" in caplog.text
    (near / "result.json").unlink()
    assert find_independent(run) == far
    assert "optimizer.momentum was 0.9, is 2.0; trainer.max_epochs was 15, is 1" in caplog.text
    same = config(write("c", seed=5), 0.9, 15)
    caplog.clear()
    assert find_independent(run) == same
    assert "alike" not in caplog.text


def test_an_independent_run_or_one_without_a_result_is_compared_with_nobody(write, tmp_path):
    first = write("independent-seed0")
    write("independent-seed1", seed=1)
    assert find_independent(first) is None
    (tmp_path / "unfinished").mkdir()
    assert find_independent(tmp_path / "unfinished") is None
    (first / "result.json").write_text("[]")
    assert find_independent(first) is None
    (first / "result.json").write_text("{torn")
    assert find_independent(first) is None
