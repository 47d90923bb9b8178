"""What is matched: losses as pure functions of tensors, without networks and without Lightning."""

from kdlab.losses.base import LogitLoss
from kdlab.losses.soft_targets import SoftTargets

__all__ = ["LogitLoss", "SoftTargets"]
