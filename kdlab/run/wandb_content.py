"""What W&B gets to know of a run beside its metrics. The names are promised: docs/tracking.md lists them."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kdlab.run.environment import git_commit
from kdlab.run.exhibits import Exhibits
from kdlab.run.folder import RunFolder
from kdlab.run.study_place import StudyPlace

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from wandb import Artifact, Image, Run

LONGEST_TAG = 64  # the server refuses longer ones
LONGEST_NAME = 128


def config_of(folder: RunFolder, place: StudyPlace) -> dict[str, Any]:
    """The resolved config, and beside its sections what tables are grouped by."""
    config: dict[str, Any] = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    about = {
        "method": _class(config["model"]),
        "student": _class(config["model"]["init_args"].get("student")),
        "dataset": _class(config["data"]),
        "study": place.study,
        "variant": place.variant,
        "run_folder": str(folder.path),
        "git_commit": git_commit(),
    }
    return config | about


def summary_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of result.json that runs are compared by; those of the profile are there already."""
    student, teacher = result["student"], result.get("teacher", {})
    summary = {f"test/{name}": value for name, value in student["test"].items()}
    summary |= {f"teacher/test_{name}": value for name, value in teacher.get("test", {}).items()}
    summary |= {
        "selected/val_accuracy": student["val"]["accuracy"],
        "selected/epoch": result["protocol"]["selected_epoch"],
        "student/parameters": student["parameters"],
        "teacher/parameters": teacher.get("parameters"),
        "train_seconds": result["train_seconds"],
        "train_images_per_s": result["train_images_per_s"],
    }
    return {name: value for name, value in summary.items() if value is not None}


def media_of(exhibits: Exhibits) -> dict[str, Any]:
    """Tables and diagrams, as wandb has them."""
    import wandb

    media: dict[str, Any] = {name: _drawn(figure) for name, figure in exhibits.figures.items()}
    for name, (columns, rows) in exhibits.tables.items():
        cells = [[wandb.Image(cell) if hasattr(cell, "shape") else cell for cell in row] for row in rows]
        table = wandb.Table(columns=[*columns], data=cells)
        if name == "test/confusion_matrix":
            fields = {column: column for column in columns}
            media[name] = wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": name})
        else:
            media[name] = table
    return media


def log_artifacts(run: Run, folder: RunFolder, result: Mapping[str, Any]) -> None:
    """Add the student and the report, and say which teacher the student is from.

    The lineage is in the metadata and in the run's config. Online the teacher's weights are an artifact that the run
    uses as well; wandb cannot say that offline.
    """
    teacher = lineage(result)
    student = {name: result["student"][name] for name in ("network", "parameters", "weights_sha256")}
    accuracy = result["student"]["test"].get("accuracy")
    about = {**student, "test_accuracy": accuracy, "method": result["method"], "teacher": teacher}
    name = artifact_name(result["experiment"], folder.path.name)
    run.log_artifact(_artifact(name, "model", folder.student, metadata=about))
    report = Path(run.dir).with_name("report")  # copies: `analyze` and `export` add to result.json
    report.mkdir(exist_ok=True)
    copies = [Path(shutil.copy(file, report)) for file in (folder.result, folder.config)]
    run.log_artifact(_artifact(f"{name}-report", "report", *copies))
    if teacher is None:
        return
    run.config.update({"teacher_artifact": teacher}, allow_val_change=True)  # type: ignore[no-untyped-call]
    if not run.offline:
        for used in (teacher, *_members(teacher)):
            if used["checkpoint"] is not None:
                run.use_artifact(_artifact(used["artifact"], "model", Path(used["checkpoint"])))


@contextmanager
def data_within(folder: RunFolder) -> Iterator[None]:
    """Let wandb keep its copies of tables in the run's folder, where `sync` finds them, and not in the home."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str((folder.path / "wandb").resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before


def lineage(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Name of the artifact of the teacher, SHA-256 of its weights and their file; None without a teacher.

    Those of an ensemble's ``members`` as well: each has a file of its own, the ensemble has none.
    """
    teacher = result.get("teacher")
    return None if teacher is None else _origin(teacher)


def _origin(teacher: Mapping[str, Any]) -> dict[str, Any]:
    checkpoint, name = teacher.get("checkpoint"), teacher["network"]
    if checkpoint is not None:
        path = Path(checkpoint)
        name = artifact_name(*path.parts[-3:-1]) if path.name == "student.safetensors" else artifact_name(path.stem)
    origin = {
        "artifact": artifact_name(name),
        "network": teacher["network"],
        "weights_sha256": teacher["weights_sha256"],
        "checkpoint": checkpoint,
    }
    if "members" in teacher:
        origin["members"] = [_origin(member) for member in teacher["members"]]
    return origin


def _members(origin: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The members of an ensemble, and those of ensembles among them."""
    for member in origin.get("members", []):
        yield member
        yield from _members(member)


def artifact_name(*parts: str) -> str:
    """A name of ASCII letters, digits, dashes, dots and underscores, which is all that W&B takes."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", "-".join(parts))[-LONGEST_NAME:]


def tag(text: str) -> str:
    """A tag of a length that W&B takes."""
    return text[:LONGEST_TAG]


def _artifact(name: str, kind: str, *files: Path, metadata: dict[str, Any] | None = None) -> Artifact:
    """An artifact of files that stay as and where they are until they are sent; wandb would copy them into the home."""
    import wandb

    artifact = wandb.Artifact(name, kind, metadata=metadata)
    for file in files:
        artifact.add_file(str(file.resolve()), name=file.name, policy="immutable")
    return artifact


def _drawn(figure: Figure) -> Image:
    import wandb
    from PIL import Image as Pictures

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return wandb.Image(Pictures.open(buffer))


def _class(section: Any) -> str | None:  # noqa: ANN401
    """The class that a section of a config names, without its module."""
    path = section.get("class_path") if isinstance(section, Mapping) else None
    return None if path is None else str(path).rsplit(".", 1)[-1]
