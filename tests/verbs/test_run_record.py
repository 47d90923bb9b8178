"""What is found out later is added to a run's result; two commands at once lose nothing."""

import json
import threading
from pathlib import Path

from filelock import FileLock

from kdlab.run.folder import RunFolder
from kdlab.verbs.run_record import _added


def test_who_comes_while_another_writes_waits_for_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.result.write_text(json.dumps({"student": 1}))
    second = threading.Thread(target=_added, args=(folder, ("export", "onnx"), {"bytes": 2}))
    with FileLock(tmp_path / ".result.lock"):
        second.start()
        second.join(0.3)  # long enough to have read and written
        folder.result.write_text(json.dumps({"student": 1, "analysis": 3}))
    second.join(10)
    assert json.loads(folder.result.read_text()) == {"student": 1, "analysis": 3, "export": {"onnx": {"bytes": 2}}}


def test_a_result_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert not _added(RunFolder(tmp_path), ("analysis",), {"a": 1})
    assert not (tmp_path / "result.json").exists()
