"""Objectives of the training loop. An objective is a loss for a certain type of batch."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.train.objectives.base import Metrics, Objective
    from groundup.train.objectives.distillation import Distillation
    from groundup.train.objectives.next_token import NextToken

__all__ = [
    "Distillation",
    "Metrics",
    "NextToken",
    "Objective",
]

__getattr__ = exports(
    __name__,
    {
        "Distillation": "distillation",
        "Metrics": "base",
        "NextToken": "next_token",
        "Objective": "base",
    },
)
