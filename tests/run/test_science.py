import copy

import pytest

from kdlab.run.science import MOST_SHOWN, aside, differences, science

CONFIG = {
    "seed_everything": 3,
    "runs_dir": "runs",
    "experiment": "digits",
    "name": "a",
    "model": {
        "class_path": "kdlab.methods.LogitMatching",
        "init_args": {
            "temperature": 4.0,
            "student": {"class_path": "kdlab.models.DigitsConv", "init_args": {"widths": [3, 6, 6]}},
            "logit_loss": None,
        },
    },
    "data": {"class_path": "Digits", "init_args": {"data_dir": "data", "batch_size": 64, "resident": True}},
    "trainer": {
        "max_epochs": 15, "precision": None, "accelerator": "auto", "devices": 1, "log_every_n_steps": 50,
        "gradient_clip_val": None,
    },
}  # fmt: skip


def changed(key, value):
    config = copy.deepcopy(CONFIG)
    *path, last = key.split("/")
    part = config
    for name in path:
        part = part[name]
    part[last] = value
    return config


def compare(key, value):
    return differences(science(CONFIG), science(changed(key, value)))


def test_a_config_does_not_differ_from_itself():
    assert differences(science(CONFIG), science(copy.deepcopy(CONFIG))) == []


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("model/init_args/temperature", 2.0, "model.temperature was 4.0, is 2.0"),
        ("model/init_args/student/init_args/widths", [3, 6, 7], "model.student.widths was [3, 6, 6], is [3, 6, 7]"),
        ("model/class_path", "X", "model.class_path was kdlab.methods.LogitMatching, is X"),
        ("model/init_args/alpha", 0.5, "model.alpha was None, is 0.5"),
        ("data/init_args/batch_size", 32, "data.batch_size was 64, is 32"),
        ("seed_everything", 4, "seed_everything was 3, is 4"),
        ("trainer/max_epochs", 30, "trainer.max_epochs was 15, is 30"),
        ("trainer/precision", "bf16-mixed", "trainer.precision was None, is bf16-mixed"),
        ("trainer/gradient_clip_val", 1.0, "trainer.gradient_clip_val was None, is 1.0"),
        (
            "trainer/callbacks",
            [{"class_path": "own.SWA"}],
            "trainer.callbacks was None, is [{'class_path': 'own.SWA'}]",
        ),
    ],
)
def test_what_decides_the_weights_is_said_with_both_values(key, value, text):
    assert compare(key, value) == [text]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data/init_args/data_dir", "/mnt/data"), ("data/init_args/resident", False),
        ("data/init_args/eval_batch_size", 7), ("trainer/accelerator", "gpu"), ("trainer/log_every_n_steps", 1),
        ("runs_dir", "/mnt/runs"), ("experiment", "x"), ("name", "b"), ("model/init_args/extra", None),
        ("trainer/callbacks", [{"class_path": "kdlab.run.checkpoints.ResumePoint"}]),
    ],
)  # fmt: skip
def test_places_and_names_and_what_is_not_given_make_no_difference(key, value):
    assert compare(key, value) == []


def test_a_key_that_is_gone_is_a_difference():
    config = copy.deepcopy(CONFIG)
    del config["model"]["init_args"]["temperature"]
    assert differences(science(CONFIG), science(config)) == ["model.temperature was 4.0, is None"]


def test_another_class_in_a_slot_is_said():
    text = compare("model/init_args/logit_loss", {"class_path": "kdlab.losses.SoftTargets"})
    assert text == ["model.logit_loss was None, is {'class_path': 'kdlab.losses.SoftTargets'}"]


def test_long_values_are_cut_and_many_differences_counted():
    assert len(compare("model/init_args/temperature", "x" * 500)[0]) < 120
    before, now = {str(i): i for i in range(20)}, {str(i): -i - 1 for i in range(20)}
    lines = differences(before, now)
    assert len(lines) == MOST_SHOWN + 1
    assert lines[-1] == f"and {20 - MOST_SHOWN} more"
    assert lines[0] == "0 was 0, is -1"


def test_science_leaves_the_config_as_it_was():
    config = copy.deepcopy(CONFIG)
    science(config)
    assert config == CONFIG


def test_science_of_a_bare_config_is_no_error():
    assert science({}) == {"model": None, "data": {"init_args": {}}, "seed_everything": None, "trainer": {}}
    assert science({"data": None, "trainer": None})["data"] == {"init_args": {}}


def test_science_is_plain_values_that_json_keeps():
    import json

    assert json.loads(json.dumps(science(CONFIG))) == science(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer/devices", 2),
        ("trainer/limit_test_batches", 4),
        ("trainer/callbacks", [{"class_path": "kdlab.run.fast.ChannelsLast"}]),
        ("data/init_args/resident", False),
        ("profile", False),
    ],
)
def test_what_is_no_science_stands_aside(key, value):
    assert science(changed(key, value)) == science(CONFIG)
    assert aside(changed(key, value)) != aside(CONFIG)


def test_a_budget_decides_what_is_learnt():
    paths = ("kdlab.profiling.Budget", "kdlab.profiling.budget.Budget")
    budgets = [[{"class_path": path, "init_args": {"amount": amount}}] for path in paths for amount in (1, 2)]
    assert all(science(changed("trainer/callbacks", budget)) != science(CONFIG) for budget in budgets)
    assert science(changed("trainer/callbacks", budgets[0])) != science(changed("trainer/callbacks", budgets[1]))
    assert aside(changed("trainer/callbacks", budgets[0]))["trainer"]["callbacks"] == []


@pytest.mark.parametrize("key", ["trainer/max_epochs", "seed_everything", "data/init_args/batch_size"])
def test_science_does_not_stand_aside(key):
    assert aside(changed(key, 7)) == aside(CONFIG)


def test_a_single_callback_needs_no_list():
    config = copy.deepcopy(CONFIG)
    config["trainer"]["callbacks"] = {"class_path": "mine.Averaging"}
    assert science(config)["trainer"]["callbacks"] == [{"class_path": "mine.Averaging"}]
    assert aside(config)["trainer"]["callbacks"] == []
