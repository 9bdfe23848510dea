"""The plan of a run, from its budget: model shape, batch, steps and learning rates."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.train.planner.plan import (
        MAX_EPOCHS,
        Budget,
        Plan,
        batch_rows,
        plan_run,
        shape_for_depth,
        share,
    )

__all__ = [
    "MAX_EPOCHS",
    "Budget",
    "Plan",
    "batch_rows",
    "plan_run",
    "shape_for_depth",
    "share",
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
        "share": "plan",
    },
)
