"""Forward and backward passes of linear layers and MLPs with the C++ kernels.

Shape letters: R is the number of rows (tokens), D the hidden size, and O the output size of a linear layer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.kernels.native_library import pointers_to, sizes_of

TILE = 16  # Weight gradients are computed in tiles of 16 x 16 values.
BLOCK = 32  # MLPs and sums of matmuls are computed in blocks of 32 x 32 values.


def in_tiles(weight: Tensor, size: int = TILE) -> bool:
    """Return whether the numbers of rows and columns of a matrix are multiples of `size`."""
    return weight.shape[0] % size == 0 and weight.shape[1] % size == 0


class _Result(ctypes.Structure):
    """The C++ struct `Result`: an output matrix, its left operand and the row stride of this operand, and its rows."""

    _fields_ = [
        ("out", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("m", ctypes.c_int64),
    ]


def transposed_matmuls(
    kernels: ctypes.CDLL, outs: Sequence[Tensor], lefts: Sequence[Tensor], right: Tensor, *, add: bool
) -> None:
    """Compute out = left^T right, or out += left^T right, for each output matrix, in place.

    If the number of rows of an output is not a multiple of TILE, the last rows are computed as a zero-padded tile. For
    example, GPT-2's vocabulary of 50,257 has one row more than a multiple of 16. PyTorch's matmul is not used for this
    case, because it would round the whole gradient to bf16 and store it twice.

    Args:
        kernels: The library of C++ kernels.
        outs: Output matrices in fp32, each of shape (m, n). n is a multiple of TILE.
        lefts: Left operands, each of shape (R, m).
        right: Right operand of shape (R, n).
        add: Whether to add to the outputs instead of overwriting them.
    """
    lefts, right = [left.contiguous() for left in lefts], right.contiguous()
    full_rows = [len(out) // TILE * TILE for out in outs]
    results = (_Result * len(outs))(
        *(
            _Result(out.data_ptr(), left.data_ptr(), left.shape[1], rows)
            for out, left, rows in zip(outs, lefts, full_rows, strict=True)
        )
    )
    sizes = sizes_of(right.shape[1], len(right), right.shape[1])
    kernels.groundup_transposed_matmuls(results, *sizes_of(len(outs)), *pointers_to(right), *sizes, ctypes.c_bool(add))
    for out, left, rows in zip(outs, lefts, full_rows, strict=True):
        if rest := len(out) - rows:
            last = torch.empty(TILE, out.shape[1])
            transposed_matmuls(kernels, [last], [F.pad(left[:, rows:], (0, TILE - rest))], right, add=False)
            out[rows:].add_(last[:rest]) if add else out[rows:].copy_(last[:rest])


class Linears(torch.autograd.Function):
    """Linear layers that have the same input. The parameters are the weights of all layers, then their biases."""

    @staticmethod
    def forward(ctx: Any, kernels: ctypes.CDLL, x: Tensor, *parameters: Tensor | None) -> tuple[Tensor, ...]:
        """Return the output of each layer."""
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        rounded = [weight.to(x.dtype) for weight in weights if weight is not None]
        ctx.save_for_backward(x, *rounded)
        ctx.kernels, ctx.has_bias = kernels, [bias is not None for bias in biases]
        return tuple(
            F.linear(x, weight, None if bias is None else bias.to(x.dtype))
            for weight, bias in zip(rounded, biases, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weights and biases."""
        x, *weights = ctx.saved_tensors
        grads_RO = [grad.contiguous().flatten(0, -2) for grad in upstream]
        grad_x = _summed_matmuls(ctx.kernels, grads_RO, weights).view_as(x) if ctx.needs_input_grad[1] else None
        grad_weights, grad_biases = _parameter_gradients(ctx.kernels, grads_RO, x, ctx.has_bias)
        return None, grad_x, *grad_weights, *grad_biases


def _parameter_gradients(
    kernels: ctypes.CDLL, grads_RO: Sequence[Tensor], x: Tensor, has_bias: Sequence[bool]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Return the gradients of the weights and biases of linear layers that have the same input.

    `grads_RO` are the gradients of the layers' outputs.
    """
    grad_weights = [torch.empty(grad_RO.shape[1], x.shape[-1]) for grad_RO in grads_RO]
    transposed_matmuls(kernels, grad_weights, grads_RO, x.flatten(0, -2), add=False)
    grad_biases = [
        torch.empty(grad_RO.shape[1]) if has else None for grad_RO, has in zip(grads_RO, has_bias, strict=True)
    ]
    for grad_bias, grad_RO in zip(grad_biases, grads_RO, strict=True):
        if grad_bias is not None:
            kernels.groundup_column_sums(*pointers_to(grad_bias, grad_RO), *sizes_of(*grad_RO.shape))
    return grad_weights, grad_biases


class _Term(ctypes.Structure):
    """The C++ struct `Term`: one matmul of a sum of matmuls, as its two operands and their inner dimension."""

    _fields_ = [("left", ctypes.c_void_p), ("right", ctypes.c_void_p), ("depth", ctypes.c_int64)]


def _summed_matmuls(kernels: ctypes.CDLL, lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> Tensor:
    """Return the sum of the matmuls left (R, O) @ right (O, D), accumulated in fp32 and rounded once."""
    if len(lefts) == 1 or not all(in_tiles(right, BLOCK) for right in rights):
        total = lefts[0] @ rights[0]
        for left, right in zip(lefts[1:], rights[1:], strict=True):
            total.addmm_(left, right)
        return total
    lefts, rights = ([matrix.contiguous() for matrix in matrices] for matrices in (lefts, rights))
    out = torch.empty(len(lefts[0]), rights[0].shape[1], dtype=lefts[0].dtype)
    operands = zip(lefts, rights, strict=True)
    terms = (_Term * len(lefts))(*(_Term(left.data_ptr(), right.data_ptr(), len(right)) for left, right in operands))
    kernels.groundup_summed_matmuls(*pointers_to(out), terms, *sizes_of(len(lefts), *out.shape))
    return out


def _gate_and_up(parts: Sequence[Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
    return parts[0], parts[1] if len(parts) > 1 else None


class FeedForward(torch.autograd.Function):
    """An MLP. The parameters are all weights, then all biases, in the order gate_proj, up_proj, down_proj.

    The backward pass recomputes the activation and overwrites saved tensors with their gradients. For a small model,
    this reduces the peak memory of training by 1/16 and increases the training time by 1 %.
    """

    @staticmethod
    def forward(ctx: Any, kernels: ctypes.CDLL, gelu: bool, x: Tensor, *parameters: Tensor | None) -> Tensor:
        """Return the output of the MLP."""
        x = x.contiguous()
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        *rounded, down = (weight.to(x.dtype).contiguous() for weight in weights if weight is not None)
        inner = [x.new_empty(*x.shape[:-1], len(weight)) for weight in rounded]
        out = torch.empty_like(inner[0])
        inner_biases = [None if bias is None else bias.float().contiguous() for bias in biases[:-1]]
        gate, up = _gate_and_up(inner)
        (gate_weight, up_weight), (gate_bias, up_bias) = _gate_and_up(rounded), _gate_and_up(inner_biases)
        ctx.sizes = (*sizes_of(x.numel() // x.shape[-1], x.shape[-1], out.shape[-1]), ctypes.c_bool(gelu))
        pointers = pointers_to(out, gate, up, x, gate_weight, up_weight, gate_bias, up_bias)
        kernels.groundup_feed_forward(*pointers, *ctx.sizes)
        ctx.save_for_backward(x, down, *inner, *rounded)
        ctx.kernels, ctx.has_bias = kernels, [bias is not None for bias in biases]
        return F.linear(out, down, None if biases[-1] is None else biases[-1].to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weights and biases."""
        x, down, *saved = ctx.saved_tensors
        inner, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        kernels, grad_RD = ctx.kernels, upstream[0].contiguous().flatten(0, -2)
        gate, up = _gate_and_up(inner)
        out = torch.empty_like(inner[0])
        kernels.groundup_feed_forward_gradients(*pointers_to(out, gate, up, grad_RD, down), *ctx.sizes)
        torch.autograd.graph.increment_version(inner)  # A second backward pass must fail, because the values are lost.
        (grad_down,), (grad_down_bias,) = _parameter_gradients(kernels, [grad_RD], out, ctx.has_bias[-1:])
        grads = [part.flatten(0, -2) for part in inner]
        grad_x = _summed_matmuls(kernels, grads, weights).view_as(x) if ctx.needs_input_grad[2] else None
        grad_weights, grad_biases = _parameter_gradients(kernels, grads, x, ctx.has_bias[:-1])
        return None, None, grad_x, *grad_weights, grad_down, *grad_biases, grad_down_bias
