"""What a student has learnt from its teacher: arrays in, numbers and figures out. No networks, no training.

`analyze` gathers everything for one split; each part can be used alone. `kdlab.analysis.figures` draws.
"""

from kdlab.analysis.answers import Answers
from kdlab.analysis.calibration import Calibration
from kdlab.analysis.cka import CKAMatrix
from kdlab.analysis.comparison import Comparison
from kdlab.analysis.confusion import Confusion
from kdlab.analysis.denoising import Denoising
from kdlab.analysis.fidelity import Fidelity
from kdlab.analysis.headline import headline
from kdlab.analysis.logit_standardization import SampleDivergences, StandardizationSummary, standardize
from kdlab.analysis.mismatches import Mismatches
from kdlab.analysis.paired import Paired
from kdlab.analysis.report import Analysis, analyze
from kdlab.analysis.standardization_page import standardization_page
from kdlab.analysis.toy_examples import FOUR_CLASSES, TEN_CLASSES, toy_table

__all__ = [
    "FOUR_CLASSES",
    "TEN_CLASSES",
    "Analysis",
    "Answers",
    "CKAMatrix",
    "Calibration",
    "Comparison",
    "Confusion",
    "Denoising",
    "Fidelity",
    "Mismatches",
    "Paired",
    "SampleDivergences",
    "StandardizationSummary",
    "analyze",
    "headline",
    "standardization_page",
    "standardize",
    "toy_table",
]
