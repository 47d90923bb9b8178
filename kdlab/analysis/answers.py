"""What is analysed: the answers of a run's networks to one split.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kdlab.analysis.inputs import Values


@dataclass(frozen=True, eq=False)
class Answers:
    """What a run's student, and its teacher if it has one, answered to one split.

    Attributes:
        name: of the run.
        student_logits: ``[N, K]``.
        labels: ``[N]`` true classes, as the data set states them.
        teacher_logits: ``[N, K]`` for the same images, not augmented; None where the run has no teacher.
        student_features: tapped layer -> ``[M, ...]``; M may be smaller than N.
        teacher_features: tapped layer -> ``[M, ...]`` for the same M images.
        training_labels: ``[N]`` classes trained on, wrong where label noise struck; of a training split only.
        class_names: K names, for figures and readers.
        index: ``[N]`` position of each image in the data set's file, if known.
    """

    name: str
    student_logits: Values
    labels: Values
    teacher_logits: Values | None = None
    student_features: Mapping[str, Values] = field(default_factory=dict)
    teacher_features: Mapping[str, Values] = field(default_factory=dict)
    training_labels: Values | None = None
    class_names: Sequence[str] = ()
    index: Values | None = None
