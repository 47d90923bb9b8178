"""What a student has learnt from its teacher: arrays in, numbers and figures out. No networks, no training.

`analyze` gathers everything for one split; each part can be used alone. `kdlab.analysis.figures` draws.
"""

from kdlab.analysis.calibration import Calibration
from kdlab.analysis.cka import CKAMatrix, MinibatchCKA, linear_cka
from kdlab.analysis.confusion import Confusion
from kdlab.analysis.denoising import Denoising
from kdlab.analysis.fidelity import Fidelity
from kdlab.analysis.logit_standardization import SampleDivergences, StandardizationSummary, standardize
from kdlab.analysis.mismatches import Mismatches
from kdlab.analysis.paired import Paired
from kdlab.analysis.report import Answers, analyze
from kdlab.analysis.toy_examples import FOUR_CLASSES, TEN_CLASSES, toy_table

__all__ = [
    "FOUR_CLASSES",
    "TEN_CLASSES",
    "Answers",
    "CKAMatrix",
    "Calibration",
    "Confusion",
    "Denoising",
    "Fidelity",
    "MinibatchCKA",
    "Mismatches",
    "Paired",
    "SampleDivergences",
    "StandardizationSummary",
    "analyze",
    "linear_cka",
    "standardize",
    "toy_table",
]
