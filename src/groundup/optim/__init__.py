"""Optimizer and learning-rate schedule."""

from groundup.optim.optimizer import Optimizer, OptimizerConfig
from groundup.optim.schedule import WarmupStableDecay

__all__ = ["Optimizer", "OptimizerConfig", "WarmupStableDecay"]
