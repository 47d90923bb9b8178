"""What an analysis is of: which weights, measured how, by which versions."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdlab.run.environment import describe_environment
from kdlab.run.folder import RunFolder
from kdlab.run.summary import read_result, teacher_digest
from kdlab.teachers import Teacher
from kdlab.verbs.loaded import LoadedRun, load_run
from kdlab.weights import digest

log = logging.getLogger(__name__)

PRECISION = "32-true"  # of all answers that are analysed, whatever the run was trained in
DEFAULT_TEMPERATURE = 4.0
DEFAULT_DDOF = 1


@dataclass(frozen=True, eq=False)
class Subject:
    """A run that is analysed.

    Attributes:
        run: the run.
        folder: of the run.
        teacher: with its weights; None where there is none, or it is not there.
        origin: what its networks are, as JSON values.
    """

    run: LoadedRun
    folder: RunFolder
    teacher: Teacher | None
    origin: dict[str, Any]

    @classmethod
    def load(cls, path: Path | str, data_dir: str | None, teacher_required: bool = True) -> Subject:
        """Load a run and say so where its networks are not those of its result any more.

        Raises:
            UsageError: if it is no run.
            IntegrityError: if its weights, or those of a required teacher, are missing or damaged.
        """
        run = load_run(path, data_dir)
        assert run.folder is not None
        teacher, result = run.teacher(teacher_required), read_result(run.folder.result) or {}
        origin = {
            "method": type(run.method).__name__,
            "student": type(run.method.student).__name__,
            "weights": None if run.weights is None else run.weights.name,
            "student_sha256": digest(run.method.student),
            "teacher_sha256": None if teacher is None else teacher_digest(teacher),
            "epoch": run.card.get("epoch"),
            "data": type(run.data).__name__,
            "label_noise": run.data.label_noise,
            "precision_of_run": result.get("precision"),
        }
        _warn_if_changed(run, origin, result)
        return cls(run, run.folder, teacher, origin)


def loss_settings(run: LoadedRun, temperature: float | None = None, ddof: int | None = None) -> tuple[float, int]:
    """Return temperature and ddof: those given, else of the run's first logit loss that has one, else 4 and 1."""
    losses = run.method.logit_losses
    own_temperature = next((loss.temperature for loss in losses if loss.temperature is not None), DEFAULT_TEMPERATURE)
    own_ddof = next((int(loss.ddof) for loss in losses if hasattr(loss, "ddof")), DEFAULT_DDOF)  # type: ignore[arg-type]
    return temperature or own_temperature, own_ddof if ddof is None else ddof


def describe_measurement(temperature: float, ddof: int, device: torch.device) -> dict[str, Any]:
    """Return, as JSON values, how and with what the answers were measured."""
    environment = describe_environment(device)
    return {"temperature": temperature, "ddof": ddof, "precision": PRECISION, "environment": environment}


def _warn_if_changed(run: LoadedRun, origin: dict[str, Any], result: dict[str, Any]) -> None:
    for role in ("student", "teacher") if run.is_final else ("teacher",):
        now, then = origin[f"{role}_sha256"], (result.get(role) or {}).get("weights_sha256")
        if now is not None and then is not None and now != then:
            log.warning(
                "the %s of %s has other weights now (SHA-256 %.8s) than when result.json was written (%.8s), so this "
                "analysis is of another %s than that result", role, run.name, now, then, role,
            )  # fmt: skip
