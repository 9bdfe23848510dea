"""The plan of a run, from its budget: model shape, batch, steps and learning rates."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.train.planner.plan import (
        MOST_EPOCHS,
        Budget,
        Plan,
        batch_rows,
        plan_run,
        shape_for_depth,
        share,
    )

__all__ = [
    "MOST_EPOCHS",
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
        "MOST_EPOCHS": "plan",
        "Budget": "plan",
        "Plan": "plan",
        "batch_rows": "plan",
        "plan_run": "plan",
        "shape_for_depth": "plan",
        "share": "plan",
    },
)
