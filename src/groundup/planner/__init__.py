"""What a budget allows: FLOPs, memory, and the plan of a run."""

from groundup.planner.flops import flops_per_token, parameter_count, product_parameters, training_bytes

__all__ = ["flops_per_token", "parameter_count", "product_parameters", "training_bytes"]
