"""Plan a training run: choose the architecture, batch size, number of steps and learning rates for a budget."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.train.planner.forecast import Forecast
    from groundup.train.planner.law import DEFAULT_LAW, Law, fit_law
    from groundup.train.planner.plan import (
        Budget,
        Plan,
        batch_rows,
        micro_batches_per_rank,
        plan_run,
        regularized,
    )
    from groundup.train.planner.sizes import BASE_EPOCHS, shape_for_depth

__all__ = [
    "BASE_EPOCHS",
    "DEFAULT_LAW",
    "Budget",
    "Forecast",
    "Law",
    "Plan",
    "batch_rows",
    "fit_law",
    "micro_batches_per_rank",
    "plan_run",
    "regularized",
    "shape_for_depth",
]

__getattr__ = exports(
    __name__,
    {
        "DEFAULT_LAW": "law",
        "Law": "law",
        "fit_law": "law",
        "Forecast": "forecast",
        "Budget": "plan",
        "Plan": "plan",
        "batch_rows": "plan",
        "plan_run": "plan",
        "regularized": "plan",
        "BASE_EPOCHS": "sizes",
        "shape_for_depth": "sizes",
        "micro_batches_per_rank": "plan",
    },
)
