"""Two hand-made examples in which plain KL prefers a wrong student, and standardized logits do not.

The teacher's favourite is right. Student A is near the teacher in every number but answers wrongly; student B has the
teacher's logits divided by 10: the same ranking and the same answer, at a tenth of the size.
"""

from dataclasses import dataclass

import numpy as np

from kdlab.analysis.fidelity import divergence
from kdlab.analysis.inputs import Floats
from kdlab.analysis.logit_standardization import standardize


@dataclass(frozen=True)
class ToyExample:
    """Logits of a teacher and two students for one sample.

    Attributes:
        name: of the example.
        classes: K names.
        teacher: K logits; its highest is the right class.
        student_a: K logits, wrong.
        student_b: K logits, right.
    """

    name: str
    classes: tuple[str, ...]
    teacher: tuple[float, ...]
    student_a: tuple[float, ...]
    student_b: tuple[float, ...]


@dataclass(frozen=True)
class ToyRow:
    """One student of a toy example.

    Attributes:
        student: "A" or "B".
        answer: name of the class with the highest logit.
        correct: whether it is the teacher's.
        logits: as given.
        standardized_logits: zero mean, unit standard deviation.
        kl: KL(teacher || student) in nats at T = 1.
        kl_standardized: the same after both were standardized.
    """

    student: str
    answer: str
    correct: bool
    logits: tuple[float, ...]
    standardized_logits: tuple[float, ...]
    kl: float
    kl_standardized: float


FOUR_CLASSES = ToyExample(
    name="4 classes",
    classes=("class 0", "dog", "bird", "class 3"),
    teacher=(1.0, 4.0, 3.0, 2.0),
    student_a=(1.0, 2.8, 3.0, 2.0),
    student_b=(0.1, 0.4, 0.3, 0.2),
)

# Of this example the source prints only the first two and the last logit. The others are the one solution on a grid
# of 0.5 (teacher) and 0.1 (student A) that gives the four printed divergences; their order among the six classes
# that nobody answers is not known and changes no number.
TEN_CLASSES = ToyExample(
    name="10 classes",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    teacher=(1.0, 4.0, 0.5, 1.5, 7.0, 2.0, 2.5, 3.0, 3.5, 4.5),
    student_a=(1.1, 4.2, 0.6, 1.6, 6.8, 2.1, 2.6, 3.1, 3.6, 7.5),
    student_b=(0.1, 0.4, 0.05, 0.15, 0.7, 0.2, 0.25, 0.3, 0.35, 0.45),
)


def toy_table(example: ToyExample, ddof: int = 0) -> list[ToyRow]:
    """Return the rows of students A and B.

    Args:
        example: `FOUR_CLASSES`, `TEN_CLASSES` or one of your own.
        ddof: 0 (population standard deviation, no eps) gives the published tables.
    """
    teacher = np.array([example.teacher])
    right = int(teacher.argmax())

    def row(student: str, values: tuple[float, ...]) -> ToyRow:
        logits = np.array([values])
        scaled, scaled_teacher = (standardize(z, ddof=ddof, eps=0.0) for z in (logits, teacher))
        answer = int(logits.argmax())
        return ToyRow(
            student=student,
            answer=example.classes[answer],
            correct=answer == right,
            logits=values,
            standardized_logits=_row(scaled),
            kl=float(divergence(logits, teacher)[0]),
            kl_standardized=float(divergence(scaled, scaled_teacher)[0]),
        )

    return [row("A", example.student_a), row("B", example.student_b)]


def _row(values: Floats) -> tuple[float, ...]:
    return tuple(values[0].tolist())
