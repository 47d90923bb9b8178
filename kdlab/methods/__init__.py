"""Who learns what from whom: one Lightning module per method."""

from kdlab.methods.base import Method
from kdlab.methods.independent import IndependentStudent
from kdlab.methods.logit_matching import LogitMatching

__all__ = ["IndependentStudent", "LogitMatching", "Method"]
