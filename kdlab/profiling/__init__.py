"""What a network costs: callbacks that measure the exported student when a test has ended, one result each."""

from kdlab.profiling.base import Profiler, Reporter
from kdlab.profiling.budget import Budget, BudgetResult
from kdlab.profiling.energy import EnergyProfile, EnergyProfiler
from kdlab.profiling.latency import LatencyProfile, LatencyProfiler
from kdlab.profiling.macs import MACsProfile, MACsProfiler
from kdlab.profiling.results import Measurement, NotMeasured
from kdlab.profiling.size import ModelSizeProfile, ModelSizeProfiler
from kdlab.profiling.training_cost import TrainingCost, TrainingCostResult

__all__ = [
    "Budget",
    "BudgetResult",
    "EnergyProfile",
    "EnergyProfiler",
    "LatencyProfile",
    "LatencyProfiler",
    "MACsProfile",
    "MACsProfiler",
    "Measurement",
    "ModelSizeProfile",
    "ModelSizeProfiler",
    "NotMeasured",
    "Profiler",
    "Reporter",
    "TrainingCost",
    "TrainingCostResult",
]
