"""What a finished run has to show: tables, reliability diagrams, and images with the answers of student and teacher.

Shapes: N tested images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor

from kdlab.analysis.calibration import Calibration
from kdlab.analysis.figures import reliability_diagram
from kdlab.data import ImageData
from kdlab.methods import Method
from kdlab.types import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 36  # images in the table of examples
MISTAKES = 24  # of which at most so many are mistakes of the student
SCORES = ("precision", "recall", "f1")

Row = list[Any]


class Answers(NamedTuple):
    """Answers to the tested images, in the order of the test file.

    Attributes:
        student: ``[N, K]`` logits.
        teacher: ``[N, K]`` logits; None without a teacher.
    """

    student: Tensor
    teacher: Tensor | None


class Table(NamedTuple):
    """Columns and rows of plain values; an image is an array ``[H, W]`` or ``[H, W, C]`` of ``uint8``."""

    columns: list[str]
    rows: list[Row]


@dataclass(frozen=True)
class Exhibits:
    """What a run shows.

    Attributes:
        tables: name -> table.
        figures: name -> drawing.
    """

    tables: Mapping[str, Table]
    figures: Mapping[str, Figure]

    @classmethod
    def of(cls, trainer: Trainer, method: Method, data: ImageData, result: Mapping[str, Any]) -> Exhibits:
        """Ask student and teacher once more about the images of the test, and show what they say.

        Args:
            trainer: says on which device and in which precision.
            method: with the student that was tested.
            data: that it was tested on.
            result: content of result.json.
        """
        names, student = data.class_names, result["student"]
        answers = ask(trainer, method, data, result["protocol"]["n_tested"])
        labels = data.test_split.labels[: len(answers.student)]
        figures = {"test/reliability_student": _reliability(answers.student, labels, "student")}
        if answers.teacher is not None:
            figures["test/reliability_teacher"] = _reliability(answers.teacher, labels, "teacher")
        tables = {
            "test/confusion_matrix": confusion_table(student["confusion_matrix"], names),
            "test/per_class": class_table(student, names),
            "test/examples": example_table(answers, data),
        }
        return cls(tables, figures)


@torch.inference_mode()
def ask(trainer: Trainer, method: Method, data: ImageData, images: int) -> Answers:
    """Return the logits of the first `images` test images, as the test computed them."""
    device = trainer.strategy.root_device
    method.to(device).eval()
    student, teacher = [], []
    for batch in data.test_split.select(torch.arange(images)).batches(data.eval_batch_size):
        seen = data.plain_view(Batch(*(tensor.to(device) for tensor in batch)))
        with trainer.precision_plugin.forward_context():
            student.append(method.evaluate(seen.image).logits.float().cpu())
            if method.teacher is not None and method.teacher.ready:
                teacher.append(method.teacher(seen).logits.float().cpu())
    return Answers(torch.cat(student), torch.cat(teacher) if teacher else None)


def confusion_table(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Table:
    """One row for each pair of label and answer that occurs."""
    rows = [[names[i], names[j], count] for i, row in enumerate(matrix) for j, count in enumerate(row) if count]
    return Table(["Actual", "Predicted", "nPredictions"], rows)


def class_table(student: Mapping[str, Any], names: Sequence[str]) -> Table:
    """One row for each class: how many images it has, and the student's scores."""
    rows = [
        [name, sum(counts), *(student["per_class"][score][i] for score in SCORES)]
        for i, (name, counts) in enumerate(zip(names, student["confusion_matrix"], strict=True))
    ]
    return Table(["class", "images", *SCORES], rows)


def example_table(answers: Answers, data: ImageData) -> Table:
    """The first mistakes of the student and the first images that it has right, with the teacher's answers beside."""
    split, names = data.test_split, data.class_names
    labels = split.labels[: len(answers.student)]
    right = answers.student.argmax(dim=-1) == labels
    mistakes = (~right).nonzero().squeeze(1)[:MISTAKES]
    shown = torch.cat([mistakes, right.nonzero().squeeze(1)[: EXAMPLES - len(mistakes)]]).tolist()
    networks = {"student": answers.student, "teacher": answers.teacher}
    asked = {role: torch.softmax(logits, dim=-1) for role, logits in networks.items() if logits is not None}
    rows = []
    for i in shown:
        row: Row = [int(split.index[i]), _picture(split.images[i]), names[int(labels[i])]]
        for shares in asked.values():
            row += [names[int(shares[i].argmax())], float(shares[i].max())]
        rows.append(row)
    columns = [column for role in asked for column in (role, f"{role} probability")]
    return Table(["index", "image", "label", *columns], rows)


def _picture(image: Tensor) -> NDArray[np.uint8]:
    """``[C, H, W]`` as ``[H, W]`` or ``[H, W, 3]``."""
    pixels: NDArray[np.uint8] = image.cpu().numpy()
    return pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]


def _reliability(logits: Tensor, labels: Tensor, role: str) -> Figure:
    return reliability_diagram(Calibration.from_logits(logits, labels), role)
