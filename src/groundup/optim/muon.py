"""The Muon optimizer, which orthogonalizes the momentum update of each matrix (Keller Jordan 2024).

The algorithm is the same as in `torch.optim.Muon`. Most of the time of a step is spent in the orthogonalization.
Matrices of the same shape are therefore orthogonalized together, by a function that can be replaced by a faster one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Orthogonalize = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Function that orthogonalizes fp32 matrices of the same shape.

The results have the same singular vectors as the inputs, and singular values near 1.
"""

# Coefficients of the quintic Newton-Schulz iteration. They maximize the slope at 0 under the condition that singular
# values converge to the range (0.7, 1.2).
COEFFICIENTS = (3.4445, -4.775, 2.0315)
STEPS = 5
EPS = 1e-7


def newton_schulz(matrices: Sequence[Tensor], dtype: torch.dtype = torch.bfloat16) -> Sequence[Tensor]:
    """Orthogonalize matrices with five Newton-Schulz steps X <- a X + (b G + c G^2) X, where G = X X^T.

    Args:
        matrices: Matrices of the same shape in fp32.
        dtype: Dtype of the matmuls. bf16 is accurate enough. If the model computes in fp32, fp32 is not slower here,
            and results depend less on the order of sums, which changes with the number of ranks.
    """
    return [_newton_schulz(matrix, dtype) for matrix in matrices]


def _newton_schulz(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(dtype)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=EPS)  # scales all singular values to at most 1
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """The Muon optimizer for 2-D parameters, with Nesterov momentum.

    Args:
        parameters: Parameters to update. All of them must be 2-D.
        lr: Learning rate, which is the spectral norm of an update. For a matrix with more rows than columns, it is
            multiplied by sqrt(rows / columns).
        momentum: Decay rate of the running mean of gradients.
        weight_decay: Decoupled weight decay.
        orthogonalize: Function that orthogonalizes matrices of the same shape. It may overwrite its inputs.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        orthogonalize: Orthogonalize = newton_schulz,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._orthogonalize = orthogonalize

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            lr, momentum, shrink = group["lr"], group["momentum"], 1 - group["lr"] * group["weight_decay"]
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = self._orthogonalize([self._momentum(parameter, momentum) for parameter in parameters])
                step = lr * math.sqrt(max(1, rows / columns))
                for parameter, update in zip(parameters, updates, strict=True):
                    if shrink != 1:
                        parameter.mul_(shrink)
                    parameter.add_(update, alpha=-step)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        grad = parameter.grad
        assert grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad, memory_format=torch.preserve_format)
        mean: Tensor = state["momentum_buffer"]
        mean.lerp_(grad, 1 - momentum)
        return grad.lerp(mean, momentum)
