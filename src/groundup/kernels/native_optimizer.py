"""AdamW with the C++ kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from groundup.kernels.native_library import sizes_of
from groundup.kernels.native_operations import NativeOperations
from groundup.model import SequenceClassifier, Transformer


class _Weight(ctypes.Structure):
    """The C++ struct `Weight`: a weight, its gradient, its state, its bf16 copy, and the factors of its update."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "grad", "mean", "square", "rounded")),
        ("size", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("step_size", "root", "kept")),
    ]


class NativeAdamW(torch.optim.AdamW):
    """AdamW (arXiv:1711.05101) whose kernel writes the bf16 copies of weights while it updates the weights.

    The state has the same keys and meaning as the state of `torch.optim.AdamW`, so each of them can resume a run of the
    other. Gradients are divided by the attribute `grad_scale`, as in the fused AdamW of PyTorch.

    Args:
        parameters: Contiguous fp32 parameters on a CPU, or their groups.
        operations: The operations that use the bf16 copies.
        settings: Settings of `torch.optim.AdamW`.
    """

    grad_scale: Tensor | None = None

    def __init__(self, parameters: Any, *, operations: NativeOperations, **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self._operations = operations

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        factor = 1.0 if self.grad_scale is None else 1.0 / float(self.grad_scale)
        for group in self.param_groups:
            self._update(group, [parameter for parameter in group["params"] if parameter.grad is not None], factor)

    def _update(self, group: dict[str, Any], parameters: list[Tensor], factor: float) -> None:
        rounded = self._operations.matmuls.weights
        (beta1, beta2), lr = group["betas"], group["lr"]
        grads = [parameter.grad.contiguous() for parameter in parameters if parameter.grad is not None]
        copies = [rounded.to_write(parameter) for parameter in parameters]
        weights = (_Weight * len(parameters))()
        for index, (parameter, grad, copy) in enumerate(zip(parameters, grads, copies, strict=True)):
            state = self._state_of(parameter)
            steps = float(state["step"]) + 1
            state["step"].fill_(steps)
            weights[index] = _Weight(
                *(tensor.data_ptr() for tensor in (parameter, grad, state["exp_avg"], state["exp_avg_sq"])),
                None if copy is None else copy.data_ptr(),
                parameter.numel(),
                lr / (1 - beta1**steps),
                (1 - beta2**steps) ** 0.5,
                1 - lr * group["weight_decay"],
            )
        factors = (ctypes.c_float(value) for value in (beta1, beta2, group["eps"], factor))
        self._operations.kernels.groundup_adamw(weights, *sizes_of(len(parameters)), *factors)
        rounded.written(parameters, copies)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state


def adamw_of(model: Transformer | SequenceClassifier) -> Callable[..., torch.optim.Optimizer]:
    """Return AdamW for a model on one rank, with the C++ kernels if the model uses them, otherwise PyTorch's.

    With the C++ kernels, the model then keeps bf16 copies of its trainable matrices.
    """
    operations, trained = model.operations, [p for p in model.parameters() if p.requires_grad]
    if not isinstance(operations, NativeOperations) or not all(_is_supported(parameter) for parameter in trained):
        return torch.optim.AdamW
    operations.matmuls.weights.track(parameter for parameter in trained if parameter.ndim == 2)
    return partial(NativeAdamW, operations=operations)


def _is_supported(parameter: Tensor) -> bool:
    return parameter.dtype == torch.float32 and parameter.device.type == "cpu" and parameter.is_contiguous()
