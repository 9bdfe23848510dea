"""Optimizer and learning-rate schedule."""

from groundup.optim.optimizer import MATRIX_LR, Optimizer, OptimizerConfig
from groundup.optim.schedule import WarmupStableDecay

__all__ = ["MATRIX_LR", "Optimizer", "OptimizerConfig", "WarmupStableDecay"]
