"""W&B can neither stop nor delay a training: read back from the files that it would send."""

import importlib.util
import json
import os
import stat
import struct
import time
from pathlib import Path
from typing import ClassVar

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from kdlab.errors import UsageError
from kdlab.run import wandb_logger, wandb_server
from kdlab.run.guard import guard
from kdlab.run.wandb_content import artifact_name, lineage, log_artifacts, tag
from kdlab.run.wandb_logger import WandbLogger
from kdlab.run.wandb_server import Server

spec = importlib.util.spec_from_file_location("wandb_file", Path(__file__).with_name("wandb_file.py"))
wandb_file = importlib.util.module_from_spec(spec)
spec.loader.exec_module(wandb_file)
read_wandb, tracked_files, written = wandb_file.read_wandb, wandb_file.tracked_files, wandb_file.written

FULL, FIRST, LAST = 1, 2, 4  # kinds of the parts of records, in LevelDB's format
KEY = "0123456789abcdef0123456789abcdef01234567"  # of nobody


@pytest.fixture(autouse=True)
def nobodys_environment(monkeypatch, tmp_path):
    """No account, no settings, nothing of the process before; messages of kdlab reach caplog."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def nobody_waits(monkeypatch):
    monkeypatch.setattr(wandb_server, "ASK_S", 0.5)
    monkeypatch.setattr(wandb_logger, "INIT_S", 1)


def tracked(logger, folder, step=0):
    """Follow a short run in this folder to its end, and read what was written."""
    logger.begin(folder, step)
    logger.log_metrics({"train/loss": 0.1, "epoch": 0}, step=9)
    logger.log_metrics({"profile/macs": 42.0}, step=10)
    logger.close()
    return read_wandb(tracked_files(folder.path)[-1])


def test_without_account_the_run_is_tracked_offline_in_its_folder(folder, capfd):
    logger = WandbLogger()
    run = tracked(logger, folder)
    assert tracked_files(folder.path)[0].parent.name.startswith("offline-run-")
    (row,) = run.history
    assert (row["train/loss"], row["epoch"], row["trainer/global_step"], row["_step"]) == (0.1, 0, 9, 0)
    assert run.summary["profile/macs"] == 42.0
    assert run.exit_code == 0
    assert run.run.project == "kdlab"
    assert capfd.readouterr().out == ""


def test_the_config_is_the_resolved_one_and_says_what_to_group_by(folder):
    config = tracked(WandbLogger(), folder).config
    assert config["seed_everything"] == 3
    assert config["model"]["init_args"] == {"student": {"class_path": "a.Small"}}
    assert (config["method"], config["student"], config["dataset"]) == ("IndependentStudent", "Small", "Digits")
    assert config["study"] is None


def test_group_tags_and_name_are_those_of_the_study(folder):
    plan = {"name": "alphas", "runs": [{"id": "run", "variant": "distilled", "values": {"model.alpha": 0.5}}]}
    (folder.path.parent / "study.json").write_text(json.dumps(plan))
    run = tracked(WandbLogger(tags=["mine"]), folder)
    assert run.run.run_group == "alphas"
    assert list(run.run.tags) == ["digits", "alphas", "distilled", "mine"]
    assert run.run.display_name == "distilled, alpha 0.5, seed 3"
    assert (run.config["study"], run.config["variant"]) == ("alphas", "distilled")


def test_a_run_of_its_own_is_grouped_by_its_experiment(folder):
    run = tracked(WandbLogger(), folder).run
    assert (run.run_group, run.display_name, list(run.tags)) == ("digits", "run", ["digits"])


def test_a_key_alone_is_no_request_to_be_online(folder, monkeypatch, closed_port, caplog):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", closed_port)
    tracked(WandbLogger(), folder)
    assert "cannot be reached" not in caplog.text


def test_what_is_disabled_writes_nothing(folder):
    logger = WandbLogger(mode="disabled")
    logger.begin(folder, 0)
    logger.log_metrics({"a": 1.0}, step=1)
    logger.experiment.log({"a": 1.0})
    logger.close()
    assert not (folder.path / "wandb").exists()


def test_nothing_is_logged_before_the_run_has_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    WandbLogger().log_metrics({"a": 1.0}, step=1)
    assert not list(tmp_path.iterdir())


CASES = {
    "refuses the key (HTTP 401)": lambda n: 401,
    "answers with HTTP 500": lambda n: 500,
    "does not answer within 0.5 s": lambda n: None,
}


@pytest.mark.parametrize("what", CASES)
def test_a_server_that_takes_no_run_is_said_once(what, folder, server, monkeypatch, caplog, capfd, nobody_waits):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server(CASES[what]))
    start = time.monotonic()
    run = tracked(WandbLogger(mode="online"), folder)
    assert time.monotonic() - start < 10
    assert len(run.history) == 1
    (message,) = [record.message for record in caplog.records if record.message.startswith("W&B: ")]
    assert what in message
    assert f"python -m kdlab sync {folder.path}" in message
    _no_key(folder, caplog.text + "".join(capfd.readouterr()))


def test_a_closed_port_is_said_at_once(folder, closed_port, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", closed_port)
    monkeypatch.setenv("WANDB_MODE", "online")
    assert len(tracked(WandbLogger(), folder).history) == 1
    assert f"W&B: {closed_port} cannot be reached (" in caplog.text
    _no_key(folder, caplog.text)


def test_there_is_no_long_wait_for_a_server():
    assert wandb_server.ASK_S + wandb_logger.INIT_S <= 8  # ending wandb and an offline start come on top: 15 s


@pytest.mark.faults  # the time of a start is the time of the machine
def test_a_run_starts_within_15_s_whatever_the_server_does(folder, server, monkeypatch, caplog):
    def slow(n):
        if n > 1:
            return None
        time.sleep(2.5)
        return 200

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server(slow))
    offline = WandbLogger(mode="offline")  # what is imported once is no delay by a server
    offline.begin(folder, 0)
    offline.close()
    time.sleep(1)  # wandb names its folders by the second
    logger = WandbLogger(mode="online")
    start = time.monotonic()
    logger.begin(folder, 0)
    assert 6 < time.monotonic() - start < 15
    logger.close()
    assert "tracked offline" in caplog.text


@pytest.mark.parametrize("mode", ["auto", "online"])
@pytest.mark.parametrize("address", ["notaurl", "http://user:geheim@api.wandb.ai"])
def test_an_address_that_is_none_does_no_harm(address, mode, folder, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", address)
    assert len(tracked(guard(WandbLogger(mode=mode)), folder).history) == 1
    (message,) = [record.message for record in caplog.records if "W&B: " in record.message]
    assert message.startswith(
        "W&B: WANDB_BASE_URL is no address that wandb takes, such as https://api.wandb.ai; tracked"
    )
    assert "geheim" not in caplog.text
    assert os.environ["WANDB_BASE_URL"] == address
    wandb.teardown()
    assert "is no address" in Server.find().refusal()  # nobody else gets the key


WRONG_SETTINGS = {
    "WANDB_MODE": "onlin",
    "WANDB_TAGS": "x" * 100,
    "WANDB_RUN_ID": "bad/id:x",
    "WANDB_PROJECT": "a/b c",
    "WANDB_RESUME": "perhaps",
    "WANDB_SILENT": "perhaps",
}


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_a_setting_that_wandb_does_not_take_is_named_and_left_out(name, folder, monkeypatch, caplog):
    monkeypatch.setenv(name, WRONG_SETTINGS[name])
    run = tracked(guard(WandbLogger()), folder)
    assert len(run.history) == 1
    assert run.run.project == "kdlab"
    message = next(record.message for record in caplog.records if name in record.message)
    assert message.startswith(f"W&B: {name} has a value that wandb does not take: ")
    assert message.endswith("; it is left out")
    assert os.environ[name] == WRONG_SETTINGS[name]


SECRETS = {
    "WANDB_API_KEY": f"{KEY} ",
    "WANDB_HTTP_PROXY": "user:geheim@proxy:3128",
    "WANDB__EXTRA_HTTP_HEADERS": "{'Authorization': 'Bearer geheim'}",
}


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_secret_in_a_refused_setting_is_written_nowhere(name, folder, monkeypatch, caplog, capfd):
    monkeypatch.setenv(name, SECRETS[name])
    tracked(guard(WandbLogger(mode="online")), folder)
    assert f"W&B: {name} has a value that wandb does not take: " in caplog.text
    for secret in (KEY, "geheim"):
        _nowhere(secret, folder, caplog.text + "".join(capfd.readouterr()))


def test_disabled_by_its_old_variable_writes_nothing(folder, monkeypatch):
    monkeypatch.setenv("WANDB_DISABLED", "true")
    WandbLogger().begin(folder, 0)
    assert not (folder.path / "wandb").exists()


@pytest.mark.parametrize("project", ["a/b", "x" * 129])
def test_a_project_that_wandb_does_not_take_is_refused_before_training(project):
    with pytest.raises(UsageError, match=r"trainer\.logger\.project is '.*: Invalid project name .*; give another"):
        WandbLogger(project=project).check_installed()


def test_a_password_in_the_address_is_written_nowhere(folder, closed_port, monkeypatch, caplog, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", closed_port.replace("//", "//user:geheim@"))
    tracked(WandbLogger(mode="online"), folder)
    assert f"W&B: {closed_port} cannot be reached (" in caplog.text
    _nowhere("geheim", folder, caplog.text + "".join(capfd.readouterr()))


@pytest.mark.parametrize("then", [401, 500, None])
def test_a_server_that_fails_after_its_first_answer_is_left_within_seconds(
    then, folder, server, monkeypatch, caplog, nobody_waits
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server(lambda n: 200 if n == 1 else then))
    start = time.monotonic()
    run = tracked(WandbLogger(mode="online"), folder)
    assert time.monotonic() - start < 10
    assert len(run.history) == 1
    assert caplog.text.count("W&B: ") == 1
    _no_key(folder, caplog.text)


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_key_that_is_none_does_no_harm(mode, folder, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "secret but short")
    assert len(tracked(WandbLogger(mode=mode), folder).history) == 1
    assert ("is none that wandb takes" in caplog.text) == (mode == "online")
    assert "secret" not in caplog.text


def test_online_without_a_key_nobody_is_asked(folder, caplog):
    assert len(tracked(WandbLogger(mode="online"), folder).history) == 1
    assert "there is no key for" in caplog.text


def test_a_key_of_netrc_is_found_and_stays_secret(tmp_path, monkeypatch, server):
    url = server(lambda n: 200)
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {url.removeprefix('http://')}\n  login user\n  password {KEY}\n")
    netrc.chmod(stat.S_IRUSR | stat.S_IWUSR)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    found = Server.find()
    assert (found.url, found.key, found.problem) == (url, KEY, None)
    assert found.refusal() is None
    assert KEY not in repr(found)


def test_what_is_no_server_of_wandb_is_recognised(monkeypatch):
    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self):
            return b"<html>hello</html>"

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer())
    assert Server("http://x", KEY).refusal() == "http://x does not answer as a W&B server does"


def test_a_folder_that_wandb_cannot_write_into_is_no_reason_to_write_elsewhere(folder, caplog):
    (folder.path / "wandb").mkdir()
    (folder.path / "wandb" / "run_id").write_text("abcd1234")
    logger = guard(WandbLogger())
    monkeypatched = os.access
    try:
        os.access = lambda path, mode, **_: str(folder.path) not in str(path) and monkeypatched(path, mode)
        logger.begin(folder, 0)
    finally:
        os.access = monkeypatched
    logger.log_metrics({"a": 1.0}, step=1)
    logger.close()
    assert caplog.text.count("WandbLogger cannot log (wandb cannot write into") == 1


def test_a_run_that_could_not_be_logged_is_closed_all_the_same(folder, caplog):
    logger = guard(WandbLogger())
    logger.begin(folder, 0)
    logger.conclude(None, None, None, {"no": "result"})
    logger.close()
    assert caplog.text.count("WandbLogger cannot log ('student')") == 1
    assert wandb.run is None  # or it would be taken for the next run of this process
    assert read_wandb(tracked_files(folder.path)[0]).exit_code == 0


def test_hyperparameters_of_a_class_of_the_user_are_let_go_where_there_is_no_run():
    WandbLogger(mode="disabled").log_hyperparams({"width": 8})


def test_a_resumed_run_continues_under_its_id_and_sends_again_what_may_be_lost(folder):
    first = tracked(WandbLogger(), folder)
    folder.metrics.write_text("epoch,step,train/loss,val/nll\n,0,,0.7\n0,4,0.30000000000000004,\n")
    time.sleep(1)  # wandb names its folders by the second
    second = tracked(WandbLogger(), folder, step=5)
    assert len(tracked_files(folder.path)) == 2
    assert first.run.run_id == second.run.run_id == (folder.path / "wandb" / "run_id").read_text()
    rows = [{key: row[key] for key in row if not key.startswith(("_runtime", "_time"))} for row in second.history]
    assert rows == [
        {"_step": 0, "trainer/global_step": 0, "val/nll": 0.7},
        {"_step": 1, "trainer/global_step": 4, "train/loss": 0.30000000000000004, "epoch": 0},
        {"_step": 2, "trainer/global_step": 9, "train/loss": 0.1, "epoch": 0},
    ]


def test_what_is_found_out_after_the_end_is_added_to_the_summary_alone(folder):
    folder.metrics.write_text("epoch,step,train/loss\n0,4,0.5\n")
    logger = WandbLogger()
    logger.begin(folder, None)
    logger.log_metrics({"analysis/test/agreement": 0.9}, step=4)
    logger.close()
    run = read_wandb(tracked_files(folder.path)[0])
    assert run.history == []
    assert run.summary["analysis/test/agreement"] == 0.9


def test_a_finished_run_that_is_tested_again_repeats_its_rows(folder):
    folder.metrics.write_text("epoch,step,train/loss\n0,4,0.5\n")
    folder.result.write_text("{}")
    run = tracked(WandbLogger(), folder, step=5)
    assert [(row["_step"], row["train/loss"]) for row in run.history] == [(0, 0.5), (1, 0.1)]


def test_a_sweep_agent_names_its_runs(folder, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "given123")
    assert tracked(WandbLogger(), folder).run.run_id == "given123"


def test_a_run_that_fails_ends_with_a_code(folder):
    logger = WandbLogger()
    logger.begin(folder, 0)
    logger.finalize("success")  # after the training, before the test
    logger.log_metrics({"a": 1.0}, step=1)
    logger.finalize("failed")
    run = read_wandb(tracked_files(folder.path)[0])
    assert (len(run.history), run.exit_code) == (1, 1)


class Online:
    """A run that is online; `finish` raises what it is given."""

    offline = False

    def __init__(self, folder, error):
        self.dir = str(folder.path / "wandb" / "run-1-ab" / "files")
        Path(self.dir).mkdir(parents=True)
        (Path(self.dir).parent / "run-ab.wandb").touch()
        self.error = error

    def finish(self, exit_code):
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, TimeoutError(), ConnectionError("its process has died")])
def test_what_was_not_sent_at_the_end_is_said_and_can_be_sent_later(folder, caplog, error):
    logger = WandbLogger(mode="online")
    logger._folder, logger._run = folder, Online(folder, error)
    logger.close()
    (file,) = tracked_files(folder.path)
    assert wandb_server.is_sent(file) == (error is None)
    assert (f"To send the rest: python -m kdlab sync {folder.path}" in caplog.text) == (error is not None)


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ("runs/digits/teacher-seed0/student.safetensors", "digits-teacher-seed0"),
        ("downloads/resnet 110.pt", "resnet-110"),
        (None, "TimmModel"),
    ],
)
def test_the_teacher_of_a_student_is_named(checkpoint, name):
    teacher = {"network": "TimmModel", "weights_sha256": "ab12", "checkpoint": checkpoint}
    assert lineage({"teacher": teacher}) == {"artifact": name, **teacher}
    assert lineage({}) is None


def test_the_members_of_an_ensemble_are_named():
    first, second = ({"network": "Conv", "weights_sha256": sha, "checkpoint": f"runs/digits/{sha}/student.safetensors"}
                     for sha in ("ab", "cd"))  # fmt: skip
    ensemble = {"network": "TeacherEnsemble", "weights_sha256": "ef"}
    found = lineage({"teacher": {**ensemble, "members": [first, second]}})
    members = [{"artifact": "digits-ab", **first}, {"artifact": "digits-cd", **second}]
    assert found == {"artifact": "TeacherEnsemble", **ensemble, "checkpoint": None, "members": members}


def test_an_online_run_uses_the_weights_of_all_its_teachers(folder, tmp_path):
    class Run:
        offline, config, dir = False, {}, str(tmp_path / "wandb" / "files")
        used: ClassVar[list[str]] = []

        def log_artifact(self, artifact):
            pass

        def use_artifact(self, artifact):
            self.used.append(artifact.name)

    for file in (folder.student, folder.result):
        file.write_text("{}")
    (tmp_path / "wandb").mkdir()
    members = [{"network": "Conv", "weights_sha256": "ab", "checkpoint": str(folder.student)}] * 2
    inner = {"network": "TeacherEnsemble", "weights_sha256": "cd", "members": members}
    student = {"network": "Conv", "parameters": 1, "weights_sha256": "ef", "test": {}}
    result = {"experiment": "digits", "method": "LogitMatching", "student": student}
    log_artifacts(Run(), folder, result | {"teacher": {**inner, "members": [inner, members[0]]}})
    assert Run.used == ["digits-run"] * 3


def test_names_are_what_the_server_takes():
    assert artifact_name("studies/alphas", "a b(c)") == "studies-alphas-a-b-c-"
    assert artifact_name("größe", "α-9") == "gr-e---9"
    wandb.Artifact(artifact_name("größe", "学生", "x.y_z"), "model")
    assert len(artifact_name("x" * 300)) == 128
    assert tag("y" * 100) == "y" * 64


def test_a_secret_is_found_where_a_block_ends(tmp_path):
    record = Record()
    record.run.notes = KEY
    data = record.SerializeToString()
    padding = Record()
    padding.run.notes = "-" * (2**15 - 7 - 7 - 7 - len(data) // 2 - 8)
    first = padding.SerializeToString()
    half = 2**15 - 7 - 7 - len(first) - 7
    parts = [(first, FULL), (data[:half], FIRST), (data[half:], LAST)]
    file = tmp_path / "run-ab.wandb"
    file.write_bytes(b"\0" * 7 + b"".join(struct.pack("<IHB", 0, len(part), kind) + part for part, kind in parts))
    assert KEY.encode() not in file.read_bytes()
    assert KEY.encode() in written(file)


def _no_key(folder, text):
    _nowhere(KEY, folder, text)


def _nowhere(secret, folder, text):
    assert secret not in text
    for path in folder.path.rglob("*"):
        assert not path.is_file() or secret.encode() not in written(path), path
