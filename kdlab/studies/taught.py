"""Who learns from which teacher of the study: ``@NAME`` in the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kdlab.errors import UsageError
from kdlab.studies.sections import Settings


class Trained(NamedTuple):
    """A teacher of the study.

    Attributes:
        id: of its run.
        network: the trained network as a config; None where the run trains no single one.
    """

    id: str
    network: object


def with_teachers(settings: Settings, teachers: Mapping[str, Trained], where: str) -> tuple[dict[str, Any], set[str]]:
    """Put the run of each ``@NAME`` into settings.

    Args:
        settings: of a run.
        teachers: that are trained before it.
        where: the run in words, for messages.

    Returns:
        the settings, in which ``@ID`` stands for the weights of a run, and the ids.

    Raises:
        UsageError: if there is no such teacher, or a network is asked for that it does not have.
    """
    needs: set[str] = set()
    filled = {key: _with_weights(value, teachers, needs, where) for key, value in settings.items()}
    for key, value in settings.items():  # the study trains it, whatever the config's recipe says
        if not isinstance(value, str) or not value.startswith("@"):
            continue
        if key.endswith(".checkpoint"):
            filled.setdefault(f"{key.removesuffix('checkpoint')}recipe", None)
        elif key == "model.teacher":
            if teachers[value[1:]].network is None:
                raise UsageError(
                    f"{where}: teacher {value} trains no single student; set model.teacher.network and "
                    f"model.teacher.checkpoint: {value}"
                )
            network = {"network": teachers[value[1:]].network, "checkpoint": filled[key], "recipe": None}
            filled[key] = {"class_path": "FrozenTeacher", "init_args": network}
    return filled, needs


def _with_weights(value: Any, teachers: Mapping[str, Trained], needs: set[str], where: str) -> Any:  # noqa: ANN401
    """Put the run of each ``@NAME`` into a value, and note that it is needed."""
    if isinstance(value, dict):
        return {key: _with_weights(item, teachers, needs, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_weights(item, teachers, needs, where) for item in value]
    if not isinstance(value, str) or not value.startswith("@"):
        return value
    if value[1:] not in teachers:
        known = ", ".join(f"@{name}" for name in teachers) or "none"
        raise UsageError(f"{where}: there is no teacher {value} before it; under `teachers` there are: {known}")
    needs.add(teachers[value[1:]].id)
    return f"@{teachers[value[1:]].id}"
