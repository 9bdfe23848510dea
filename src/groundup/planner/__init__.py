"""What a budget allows: FLOPs, memory, and the plan of a run."""

from typing import TYPE_CHECKING

from groundup.lazy import exports

if TYPE_CHECKING:
    from groundup.planner.flops import (
        IDLE_BYTES,
        cache_bytes,
        flops_per_token,
        inference_bytes,
        inference_flops_per_token,
        parameter_count,
        product_parameters,
        training_bytes,
        weight_bytes,
    )
    from groundup.planner.plan import MOST_EPOCHS, Budget, Plan, batch_rows, plan_run, shape_for_depth, share

__all__ = [
    "IDLE_BYTES",
    "MOST_EPOCHS",
    "Budget",
    "Plan",
    "batch_rows",
    "cache_bytes",
    "flops_per_token",
    "inference_bytes",
    "inference_flops_per_token",
    "parameter_count",
    "plan_run",
    "product_parameters",
    "shape_for_depth",
    "share",
    "training_bytes",
    "weight_bytes",
]

__getattr__ = exports(
    __name__,
    {
        "IDLE_BYTES": "flops",
        "MOST_EPOCHS": "plan",
        "Budget": "plan",
        "Plan": "plan",
        "batch_rows": "plan",
        "cache_bytes": "flops",
        "flops_per_token": "flops",
        "inference_bytes": "flops",
        "inference_flops_per_token": "flops",
        "parameter_count": "flops",
        "plan_run": "plan",
        "product_parameters": "flops",
        "shape_for_depth": "plan",
        "share": "plan",
        "training_bytes": "flops",
        "weight_bytes": "flops",
    },
)
