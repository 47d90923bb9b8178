"""The independent student to compare a distilled one with, when nobody names one."""

import logging
from pathlib import Path
from typing import Any

from kdlab.run.summary import read_result

log = logging.getLogger(__name__)

BESIDE = ("epochs", "selection", "batch_size", "augmentation", "mixing", "label_noise_kind")  # of the protocol


def find_independent(run: Path) -> Path | None:
    """Return the run beside `run` that trained the same student on the same data without a teacher, if there is one.

    Of several, the one with the run's own seed, else the first by name.
    """
    own = read_result(run / "result.json")
    if own is None or own.get("method") == "IndependentStudent":
        return None
    found = []
    for folder in sorted(run.resolve().parent.iterdir()):
        other = read_result(folder / "result.json")
        if other is not None and other.get("method") == "IndependentStudent" and _kind(other) == _kind(own):
            found.append((other.get("seed") != own.get("seed"), folder))
    if not found:
        return None
    _, chosen = min(found, key=lambda pair: pair[0])
    log.info("compared with the independent student in %s; name another with --against", chosen)
    before, now = (result.get("protocol", {}) for result in (own, read_result(chosen / "result.json") or {}))
    if differing := [
        f"{name} ({before.get(name)}, {now.get(name)})" for name in BESIDE if before.get(name) != now.get(name)
    ]:
        log.warning("it was not trained alike: %s", "; ".join(differing))
    return chosen


def _kind(result: dict[str, Any]) -> tuple[object, ...]:
    """What two runs must share to be compared at all."""
    student, protocol = result.get("student", {}), result.get("protocol", {})
    names = ("name", "fingerprint", "split_seed", "val_fraction", "train_per_class", "label_noise")
    return (student.get("network"), student.get("parameters"), *(protocol.get(name) for name in names))
