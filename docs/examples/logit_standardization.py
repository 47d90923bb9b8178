"""Why logits are standardised before distillation: a toy example with the figures of a student's report.

Run: python docs/examples/logit_standardization.py

A teacher is right. Student A's logits are close to the teacher's, but it answers another class; student B gives every
class a tenth of the teacher's logit and answers as the teacher does. The divergence prefers A, which is wrong, until
the logits are standardised: then B has nothing left to learn. T = 1, natural logarithms, the population's standard
deviation. Source of the method: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, whose code
takes the sample standard deviation (ddof=1, the default of StandardizedSoftTargets).
"""

import torch
from torch import Tensor

from kdlab.losses import SoftTargets, StandardizedSoftTargets
from kdlab.losses.standardized import standardize

# The report prints the ends of its ten logits; these are the values that give its figures. The order of the classes
# that it does not name is ours, and does not matter.
EXAMPLES = {
    "4 classes": {
        "teacher": [1.0, 4.0, 3.0, 2.0],
        "student A": [1.0, 2.8, 3.0, 2.0],
        "student B": [0.1, 0.4, 0.3, 0.2],
    },
    "10 classes": {
        "teacher": [1.0, 4.0, 0.5, 1.5, 7.0, 2.0, 2.5, 3.0, 3.5, 4.5],
        "student A": [1.1, 4.2, 0.6, 1.6, 6.8, 2.1, 2.6, 3.1, 3.6, 7.5],
        "student B": [0.1, 0.4, 0.05, 0.15, 0.7, 0.2, 0.25, 0.3, 0.35, 0.45],
    },
}


def print_table(title: str, logits: dict[str, Tensor]) -> None:
    """Print, for the teacher and each student, the answer, the divergences and the ends of the standardised logits."""
    plain, standardized = SoftTargets(temperature=1.0), StandardizedSoftTargets(temperature=1.0, ddof=0)
    teacher = logits["teacher"]
    print(f"{title:<12}{'answer':>8}{'KL':>10}{'KL, standardised':>19}   standardised logits")
    for name, row in logits.items():
        z = standardize(row, ddof=0)[0]
        divergences = f"{plain(row, teacher):>10.4f}{standardized(row, teacher):>19.4f}"
        if name == "teacher":
            divergences = f"{'-':>10}{'-':>19}"
        print(f"{name:<12}{row.argmax():>8}{divergences}   [{z[0]:.2f} ... {z[-1]:.2f}]")
    print()


for title, rows in EXAMPLES.items():
    print_table(title, {name: torch.tensor([row], dtype=torch.float64) for name, row in rows.items()})
