"""Plan a training run: choose the architecture, batch size, number of steps and learning rates for a budget."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.train.planner.plan import (
        MAX_EPOCHS,
        Budget,
        Plan,
        batch_rows,
        micro_batches_per_rank,
        plan_run,
        shape_for_depth,
    )

__all__ = [
    "MAX_EPOCHS",
    "Budget",
    "Plan",
    "batch_rows",
    "micro_batches_per_rank",
    "plan_run",
    "shape_for_depth",
]

__getattr__ = exports(
    __name__,
    {
        "MAX_EPOCHS": "plan",
        "Budget": "plan",
        "Plan": "plan",
        "batch_rows": "plan",
        "plan_run": "plan",
        "shape_for_depth": "plan",
        "micro_batches_per_rank": "plan",
    },
)
