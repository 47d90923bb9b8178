"""The independent student to compare a distilled one with, when nobody names one."""

import logging
from pathlib import Path
from typing import Any

import yaml

from kdlab.run.science import differences, science
from kdlab.run.summary import read_result

log = logging.getLogger(__name__)


def find_independent(run: Path) -> Path | None:
    """Return the run beside `run` that trained the same student on the same data without a teacher, if there is one.

    Of several, the one that was trained most like it, then with its seed, then the first by name.
    """
    own = read_result(run / "result.json")
    if own is None or own.get("method") == "IndependentStudent":
        return None
    found = []
    for folder in sorted(run.resolve().parent.iterdir()):
        other = read_result(folder / "result.json")
        if other is not None and other.get("method") == "IndependentStudent" and _kind(other) == _kind(own):
            differing = differences(_recipe(run), _recipe(folder))
            found.append((len(differing), other.get("seed") != own.get("seed"), folder, differing))
    if not found:
        return None
    *_, chosen, differing = min(found, key=lambda one: one[:2])
    log.info("compared with the independent student in %s; name another with --against", chosen)
    if differing:
        log.warning("it was not trained alike: %s", "; ".join(differing))
    return chosen


def _recipe(run: Path) -> dict[str, Any]:
    """How a student was trained, apart from what its method adds and from its seed; nothing without a config."""
    try:
        config = science(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return {}
    arguments = config["model"].get("init_args") or {}
    return {
        **{part: arguments.get(part) for part in ("optimizer", "lr_scheduler")},
        "data": {**config["data"], "init_args": {**config["data"]["init_args"], "seed": None}},
        "trainer": config["trainer"],
    }


def _kind(result: dict[str, Any]) -> tuple[object, ...]:
    """What two runs must share to be compared at all."""
    student, protocol = result.get("student", {}), result.get("protocol", {})
    names = ("name", "fingerprint", "split_seed", "val_fraction", "train_per_class", "label_noise")
    return (student.get("network"), student.get("parameters"), *(protocol.get(name) for name in names))
