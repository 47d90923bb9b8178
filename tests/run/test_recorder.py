"""The log of a run may fail; the run goes on."""

import logging
from pathlib import Path

import pytest

from kdlab.run.recorder import RunLog


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_on_a_full_disk_is_said_once(caplog, capsys):
    logger, log = logging.getLogger("a run"), RunLog("/dev/full", encoding="utf-8")
    logger.addHandler(log)
    logger.propagate = False
    for number in range(3):
        logger.warning("line %d", number)
    log.close()
    logger.removeHandler(log)
    assert caplog.text.count("/dev/full cannot be written ([Errno 28] No space left on device); training goes on") == 1
    assert capsys.readouterr().err == ""  # where Python prints the tracebacks of logging


def test_names_of_any_bytes_can_be_logged(tmp_path):
    logger, log = logging.getLogger("a run"), RunLog(tmp_path / "log.txt", encoding="utf-8", errors="backslashreplace")
    logger.propagate = False  # pytest would keep the text, and its workers can send UTF-8 alone
    logger.addHandler(log)
    logger.warning("run folder \udcc3\udc9c")
    log.close()
    logger.removeHandler(log)
    assert (tmp_path / "log.txt").read_text() == "run folder \\udcc3\\udc9c\n"
