"""Steps of the arithmetic with backward passes of their own, which keep less for it than PyTorch would.

What is kept of every layer until its backward pass is what training takes beside weights and optimizer; where the
weights are frozen, it is most of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_GELUS = {"gelu": "none", "gelu_tanh": "tanh"}  # PyTorch's names


def reciprocal_rms(x32: Tensor, eps: float) -> Tensor:
    """1 / rms(x) of each row, (..., 1), in fp32."""
    return torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)


class FrozenLinear(torch.autograd.Function):
    """x W^T + b with frozen weights that are kept in another dtype than x: no rounded copy of them stays behind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, Tensor | None]:
        (weight,) = ctx.saved_tensors
        grad_bias = upstream[0].flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return upstream[0] @ weight.to(upstream[0].dtype), None, grad_bias


class FrozenRMSNorm(torch.autograd.Function):
    """x / rms(x) * weight with a frozen weight: x stays behind as it came, and not in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        x32 = x.float()
        return weight.to(x.dtype) * (x32 * reciprocal_rms(x32, eps)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        x32 = x.float()
        r = reciprocal_rms(x32, ctx.eps)
        normed, grad = x32 * r, (upstream[0] * weight.to(x.dtype)).float()
        return (r * (grad - normed * (grad * normed).mean(-1, keepdim=True))).to(x.dtype), None, None


class Gated(torch.autograd.Function):
    """activation(gate) * up: the activation is computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return activated(gate, activation) * up

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        grad = upstream[0] * up
        if ctx.activation == "silu":
            grad_gate = torch.ops.aten.silu_backward(grad, gate)
        else:
            grad_gate = torch.ops.aten.gelu_backward(grad, gate, approximate=_GELUS[ctx.activation])
        return grad_gate, upstream[0] * activated(gate, ctx.activation), None


def activated(x: Tensor, activation: str) -> Tensor:
    """SiLU, or GELU: exact, or by its tanh approximation."""
    return F.silu(x) if activation == "silu" else F.gelu(x, approximate=_GELUS[activation])
