"""The log of a run may fail; the run goes on."""

import logging
from pathlib import Path

import pytest

from kdlab.run.recorder import RunLog


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
