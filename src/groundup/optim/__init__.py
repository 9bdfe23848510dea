"""The optimizers and the learning-rate schedule."""

from groundup.optim.muon import Orthogonalize, newton_schulz
from groundup.optim.optimizer import (
    GROUPS,
    MATRIX_LR,
    GroupRate,
    MatrixOptimizer,
    Optimizer,
    OptimizerConfig,
    WarmupStableDecay,
    group_rates,
    parameter_groups,
)

__all__ = [
    "GROUPS",
    "MATRIX_LR",
    "GroupRate",
    "MatrixOptimizer",
    "Optimizer",
    "OptimizerConfig",
    "Orthogonalize",
    "WarmupStableDecay",
    "group_rates",
    "newton_schulz",
    "parameter_groups",
]
