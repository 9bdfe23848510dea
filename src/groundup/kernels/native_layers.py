"""Forward and backward passes of linear layers and MLPs with the C++ kernels.

Shape letters: R is the number of rows (tokens), D the hidden size, and O the output size of a linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.kernels.matmuls import Matmuls
from groundup.kernels.native_library import pointers_to, sizes_of


class Linears(torch.autograd.Function):
    """Linear layers that have the same input. The parameters are the weights of all layers, then their biases."""

    @staticmethod
    def forward(ctx: Any, matmuls: Matmuls, x: Tensor, *parameters: Tensor | None) -> tuple[Tensor, ...]:
        """Return the output of each layer."""
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        rounded = [matmuls.weights.of(weight) for weight in weights if weight is not None]
        ctx.save_for_backward(x, *rounded)
        ctx.matmuls, ctx.has_bias = matmuls, [bias is not None for bias in biases]
        return tuple(matmuls.linear(x, rounded, biases))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weights and biases."""
        x, *weights = ctx.saved_tensors
        grads_RO = [grad.contiguous().flatten(0, -2) for grad in upstream]
        grad_x = ctx.matmuls.input_gradients(grads_RO, weights).view_as(x) if ctx.needs_input_grad[1] else None
        if not any(ctx.needs_input_grad[2:]):
            return None, grad_x, *(None for _ in ctx.needs_input_grad[2:])
        grad_weights, grad_biases = _parameter_gradients(ctx.matmuls, grads_RO, x, ctx.has_bias)
        return None, grad_x, *grad_weights, *grad_biases


def _parameter_gradients(
    matmuls: Matmuls, grads_RO: Sequence[Tensor], x: Tensor, has_bias: Sequence[bool]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Return the gradients of the weights and biases of linear layers that have the same input.

    `grads_RO` are the gradients of the layers' outputs.
    """
    grad_weights = matmuls.weight_gradients(grads_RO, x.flatten(0, -2))
    grad_biases = [
        torch.empty(grad_RO.shape[1]) if has else None for grad_RO, has in zip(grads_RO, has_bias, strict=True)
    ]
    for grad_bias, grad_RO in zip(grad_biases, grads_RO, strict=True):
        if grad_bias is not None:
            matmuls.library.groundup_column_sums(*pointers_to(grad_bias, grad_RO), *sizes_of(*grad_RO.shape))
    return grad_weights, grad_biases


class FeedForward(torch.autograd.Function):
    """An MLP. The parameters are all weights, then all biases, in the order gate_proj, up_proj, down_proj.

    The backward pass recomputes the activation and overwrites saved tensors with their gradients. For a small model,
    this reduces the peak memory of training by 1/16 and increases the training time by 1 %.
    """

    @staticmethod
    def forward(ctx: Any, matmuls: Matmuls, gelu: bool, x: Tensor, *parameters: Tensor | None) -> Tensor:
        """Return the output of the MLP."""
        x = x.contiguous()
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        *rounded, down = (matmuls.weights.of(weight) for weight in weights if weight is not None)
        out, inner = matmuls.feed_forward(gelu, x, rounded, biases[:-1])
        ctx.save_for_backward(x, down, *inner, *rounded)
        ctx.matmuls, ctx.gelu, ctx.has_bias = matmuls, gelu, [bias is not None for bias in biases]
        return matmuls.linear(out, [down], biases[-1:])[0]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weights and biases."""
        x, down, *saved = ctx.saved_tensors
        inner, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        matmuls, grad_RD = ctx.matmuls, upstream[0].contiguous().flatten(0, -2)
        out = matmuls.feed_forward_gradients(ctx.gelu, inner, grad_RD, down)
        torch.autograd.graph.increment_version(inner)  # A second backward pass must fail, because the values are lost.
        (grad_down,), (grad_down_bias,) = _parameter_gradients(matmuls, [grad_RD], out, ctx.has_bias[-1:])
        grads = [part.flatten(0, -2) for part in inner]
        grad_x = matmuls.input_gradients(grads, weights).view_as(x) if ctx.needs_input_grad[2] else None
        grad_weights, grad_biases = _parameter_gradients(matmuls, grads, x, ctx.has_bias[:-1])
        return None, None, grad_x, *grad_weights, grad_down, *grad_biases, grad_down_bias
