"""Long runs and many runs in one process: nothing grows; what a log file shows of them."""

import gc
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdlab.cli import main
from kdlab.methods import Method

EPOCHS = 200
MIB = 2**20


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def counted() -> dict[str, int]:
    """What this process holds now."""
    gc.collect()
    handles = len(list(Path("/proc/self/fd").iterdir()))
    return {"resident": resident(), "handles": handles, "threads": threading.active_count()}


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_two_hundred_epochs_take_no_more_memory_handles_or_threads_than_fifty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[[str, int], None]
) -> None:
    seen = {}

    def on_train_epoch_start(module: Method) -> None:
        if module.current_epoch in (50, EPOCHS - 1):
            seen[module.current_epoch] = counted()

    monkeypatch.setattr(Method, "on_train_epoch_start", on_train_epoch_start)
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), "--trainer.max_epochs",
                 str(EPOCHS), "--trainer.log_every_n_steps", "1"]  # fmt: skip
    assert main(arguments) == 0
    early, late = seen[50], seen[EPOCHS - 1]
    assert late["resident"] - early["resident"] < 20 * MIB
    assert late["handles"] == early["handles"]
    assert late["threads"] == early["threads"]
    tally(f"{EPOCHS} epochs: resident memory +{(late['resident'] - early['resident']) / MIB:.1f} MiB after the 50th, "
          "open files and threads +0", 1)  # fmt: skip


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_runs_one_after_the_other_in_one_process_leave_nothing_open(
    tmp_path: Path, tally: Callable[[str, int], None]
) -> None:
    runs = 20
    for number in range(runs):
        arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), "--name", f"run{number}"]
        assert main([*arguments, "--trainer.max_epochs", "1", "--data.train_per_class", "10"]) == 0
        if number == 4:
            early = counted()
    late = counted()
    assert late["handles"] == early["handles"]
    assert late["threads"] == early["threads"]
    assert late["resident"] - early["resident"] < 50 * MIB
    tally("runs one after the other in one process: open files and threads +0 after the fifth", runs)


def test_a_log_file_gets_a_line_for_each_epoch_with_the_time_left_and_no_bar(
    tmp_path: Path, in_child: Callable[..., Any]
) -> None:
    arguments = ["fit", "--config", "digits/independent", "--runs_dir", str(tmp_path), "--name", "run",
                 "--trainer.max_epochs", "4", "--data.train_per_class", "10"]  # fmt: skip
    ended = in_child(arguments)
    assert ended.code == 0
    log = (tmp_path / "digits" / "run" / "log.txt").read_text()
    for said in (ended.said, log):
        epochs = re.findall(r"epoch (\d)/4  loss \d\.\d+ .* val accuracy .*", said)
        assert epochs == ["1", "2", "3", "4"]
        assert len(re.findall(r"  \d+:\d\d:\d\d left$", said, flags=re.MULTILINE)) == 3
        assert "\r" not in said
        assert "\x1b" not in said
