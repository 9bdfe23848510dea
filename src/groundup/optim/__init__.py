"""Optimizer and learning-rate schedule."""

from groundup.optim.muon import Orthogonalize, newton_schulz
from groundup.optim.optimizer import MATRIX_LR, Optimizer, OptimizerConfig, parameter_groups
from groundup.optim.schedule import WarmupStableDecay

__all__ = [
    "MATRIX_LR",
    "Optimizer",
    "OptimizerConfig",
    "Orthogonalize",
    "WarmupStableDecay",
    "newton_schulz",
    "parameter_groups",
]
