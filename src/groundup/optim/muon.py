"""Muon: momentum whose every matrix is orthogonalized before it is added (Keller Jordan 2024).

As torch's own, but for this: matrices of one shape are orthogonalized together, by a function that is given, because
that is where a step's time goes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Orthogonalize = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Matrices of one shape, fp32, to ones with the same singular vectors and singular values near 1. May work in place."""

# Of the quintic of Newton-Schulz: the steepest slope at 0 that still keeps singular values within about (0.7, 1.2).
COEFFICIENTS = (3.4445, -4.775, 2.0315)
STEPS = 5
EPS = 1e-7


def newton_schulz(matrices: Sequence[Tensor], dtype: torch.dtype = torch.bfloat16) -> Sequence[Tensor]:
    """Orthogonalize by five steps X <- a X + (b G + c G^2) X, G = X X^T.

    Args:
        dtype: of the products. bf16 is exact enough; where a model computes in fp32, its products are no slower, and
            sums that are rounded in another order (as on another number of ranks) do not drift apart.
    """
    return [_newton_schulz(matrix, dtype) for matrix in matrices]


def _newton_schulz(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(dtype)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=EPS)  # no singular value is above 1
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """For matrices only.

    Args:
        lr: in units of the update's spectral norm; tall matrices take sqrt(rows / columns) of it.
        momentum: of the running mean of gradients, with Nesterov's look ahead.
        weight_decay: decoupled.
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
        """Update every matrix that has a gradient."""
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
