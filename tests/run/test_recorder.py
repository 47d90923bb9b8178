"""The log of a run may fail; the run goes on."""

import logging
from pathlib import Path

import pytest

from kdlab.run.folder import RunFolder
from kdlab.run.recorder import RunLog, RunRecorder


def line(text):
    return logging.LogRecord("kdlab", logging.INFO, __file__, 1, text, None, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_on_a_full_disk_is_said_once(caplog, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger("kdlab"), "handlers", [])  # those of commands that other tests ran
    log = RunLog("/dev/full", encoding="utf-8")
    for number in range(3):
        log.handle(line(f"line {number}"))
    log.close()
    assert caplog.text.count("/dev/full cannot be written ([Errno 28] No space left on device); training goes on") == 1
    assert "Traceback" not in capsys.readouterr().err  # where Python prints those of logging


def test_names_of_any_bytes_can_be_logged(tmp_path):
    log = RunLog(tmp_path / "log.txt", encoding="utf-8", errors="backslashreplace")
    log.handle(line("run folder \udcc3\udc9c"))
    log.close()
    assert (tmp_path / "log.txt").read_text() == "run folder \\udcc3\\udc9c\n"


def test_a_folder_that_cannot_be_filled_is_given_up(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdlab.run.recorder.write_text", full)
    recorder = RunRecorder(tmp_path / "run", None, "a: 1\n")
    with pytest.raises(OSError, match="No space"):
        recorder._claim()
    recorder.close()
    assert not (tmp_path / "run" / "owner.json").exists()
    assert not RunFolder(tmp_path / "run").in_use
