"""What a run ends with: result.json, a table that a person reads, and predictions."""

import csv
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from kdlab.atomic import atomic_write, write_text
from kdlab.data import ImageData
from kdlab.methods import Method
from kdlab.run.costs import cost_report, cost_table
from kdlab.run.environment import describe_environment
from kdlab.run.noise import noise_report
from kdlab.run.recorder import RunRecorder
from kdlab.teachers import CachedTeacher, FrozenTeacher, Teacher, TeacherEnsemble
from kdlab.weights import digest

COLUMNS = {"accuracy": "accuracy %", "top5": "top-5 %", "nll": "NLL", "ece": "ECE", "agreement": "agrees %"}
PERCENT = ("accuracy", "top5", "agreement")
NAMED_IN_TABLE = 24  # longer network names are cut


def build_result(
    trainer: Trainer, model: Method, data: ImageData, run: dict[str, Any], recorder: RunRecorder | None = None
) -> dict[str, Any]:
    """Everything worth knowing about a run after its test, as JSON values.

    Args:
        trainer: has just tested.
        model: the method; its student holds the weights that were tested.
        data: what it was tested on.
        run: ``experiment``, ``name``, ``seed`` and ``protocol`` of the run.
        recorder: knows the time of a run that trained.
    """
    logged = trainer.callback_metrics
    result: dict[str, Any] = {"format": 1, **run, "method": type(model).__name__}
    result["protocol"] |= data.describe()
    result["protocol"]["n_tested"] = sum(map(sum, model.test_report["confusion_matrix"]))
    result["student"] = describe_network(model.student) | {"test": _under("test/", logged)} | model.test_report
    result["student"]["weights_sha256"] = digest(model.student)
    teacher = None if model.teacher is None else model.teacher.innermost
    if teacher is not None and teacher.ready:
        result["teacher"] = describe_teacher(teacher) | {"test": _under("teacher/test_", logged)}
        if isinstance(model.teacher, CachedTeacher) and recorder is not None:
            result["teacher"]["images_answered"] = model.teacher.images_answered
            result["teacher"]["images_computed"] = model.teacher.images_computed
    if recorder is not None:
        device = trainer.strategy.root_device  # which the networks have left after the test
        networks: dict[str, nn.Module | None] = {"student": model.student, "teacher": teacher}
        for role, asked in networks.items():
            if role in result and asked is not None and (noise := noise_report(asked.to(device), data, device)):
                result[role]["noise"] = noise
        result["train_seconds"] = round(recorder.train_seconds, 3)
        result["train_images_per_s"] = (
            round(statistics.median(recorder.images_per_s)) if recorder.images_per_s else None
        )
    result |= cost_report(trainer.callbacks)  # type: ignore[attr-defined]
    environment = describe_environment(trainer.strategy.root_device)
    return result | {"world_size": trainer.world_size, "precision": str(trainer.precision), "environment": environment}


def describe_network(network: nn.Module) -> dict[str, Any]:
    """Class and size of a network; buffers are not parameters."""
    return {"network": type(network).__name__, "parameters": sum(p.numel() for p in network.parameters())}


def describe_teacher(teacher: Teacher) -> dict[str, Any]:
    """Network, weights and the file they are from; of an ensemble, those of its members as well."""
    teacher = teacher.innermost
    about = describe_network(teacher.answering) | {"weights_sha256": teacher_digest(teacher)}
    if isinstance(teacher, FrozenTeacher):
        about["checkpoint"] = None if teacher.untrained else teacher.checkpoint
        about["untrained"] = teacher.untrained
    if isinstance(teacher, TeacherEnsemble):
        about["members"] = [describe_teacher(member) for member in teacher.teachers]  # type: ignore[arg-type]
    return about


def teacher_digest(teacher: Teacher) -> str:
    """SHA-256 of the weights of a teacher that is ready; of all its networks if it is an ensemble."""
    return digest(teacher.answering)


def write_result(result: dict[str, Any], path: Path) -> None:
    """Write `result` as JSON, atomically."""
    write_text(path, json.dumps(result, indent=1) + "\n")


def read_result(path: Path) -> dict[str, Any] | None:
    """Return what `write_result` wrote; None where there is no such file, or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def print_table(result: dict[str, Any]) -> None:
    """Print the test results of the student and, where there is one, of the teacher."""
    protocol = result["protocol"]
    title = f"{result['experiment']}/{result['name']}: {result['method']} on {protocol['n_tested']:,} test images, "
    table = Table(title=title + protocol["selection"], title_justify="left", title_style="")
    table.add_column("")
    table.add_column("network")
    for header in (*COLUMNS.values(), "parameters", "training"):
        table.add_column(header, justify="right")
    for role in ("teacher", "student"):
        row = result.get(role)
        if row is None or not row["test"]:
            continue
        seconds = f"{result['train_seconds']:.1f} s" if role == "student" and "train_seconds" in result else ""
        table.add_row(role, row["network"][:NAMED_IN_TABLE], *_cells(row["test"]), f"{row['parameters']:,}", seconds)
    console = Console()
    console = console if console.is_terminal else Console(width=110)
    console.print(table)
    costs = cost_table(result)
    if costs is not None:
        console.print(costs)


def write_predictions(batches: Iterable[dict[str, Tensor]], class_names: Sequence[str], path: Path) -> None:
    """Write index, label, predicted class and its probability of each image to a CSV file, atomically.

    Args:
        batches: ``index`` [B], ``label`` [B] and ``logits`` [B, K] each.
        class_names: of the K classes.
        path: of the file.
    """
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label", "prediction", "probability"])
        for batch in batches:
            probability, prediction = torch.softmax(batch["logits"], dim=-1).max(dim=-1)
            columns = (batch["index"].tolist(), batch["label"].tolist(), prediction.tolist(), probability.tolist())
            for index, label, predicted, share in zip(*columns, strict=True):
                writer.writerow([index, class_names[label], class_names[predicted], f"{share:.6f}"])


def _under(prefix: str, logged: dict[str, Any]) -> dict[str, float | None]:
    """The metrics whose key starts with `prefix`, as floats, without it; None where one is not defined."""
    values = {key.removeprefix(prefix): float(value) for key, value in logged.items() if key.startswith(prefix)}
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def _cells(metrics: dict[str, float | None]) -> list[str]:
    cells = []
    for name in COLUMNS:
        value = metrics.get(name)
        cells.append("" if value is None else f"{100 * value:.2f}" if name in PERCENT else f"{value:.4f}")
    return cells
