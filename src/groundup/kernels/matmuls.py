"""The matmuls of linear layers and MLPs in training, each with the kernel that was chosen for it.

Shape letters: R is the number of rows (tokens), D the hidden size, F the FFN size, and O the output size of a linear
layer. Weights are (O, D), in bf16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.kernels.kernel_choice import TILE, Kernel, KernelChoice, MatmulGroup, Operation
from groundup.kernels.native_library import multiplies_bf16, pointers_to, sizes_of
from groundup.kernels.rounded_weights import RoundedWeights


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


class _Term(ctypes.Structure):
    """The C++ struct `Term`: one matmul of a sum of matmuls, as its two operands and their inner dimension."""

    _fields_ = [("left", ctypes.c_void_p), ("right", ctypes.c_void_p), ("depth", ctypes.c_int64)]


def _two(parts: Sequence[Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
    return parts[0], parts[1] if len(parts) > 1 else None


def _matmul(library: ctypes.CDLL, left: Tensor, right: Tensor, *, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Return the product of bf16 matrices by PyTorch. Without bf16 instructions, PyTorch is fast only in fp32."""
    if multiplies_bf16(library):
        return (left @ right).to(dtype)
    return (left.float() @ right.float()).to(dtype)


def _native_linear(
    library: ctypes.CDLL, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> list[Tensor]:
    x, outs = x.contiguous(), [x.new_empty(*x.shape[:-1], len(weight)) for weight in weights]
    for out, weight, bias in zip(outs, weights, biases, strict=True):
        operands = (weight.contiguous(), None if bias is None else bias.float().contiguous())
        sizes = sizes_of(x.numel() // x.shape[-1], x.shape[-1], len(weight))
        library.groundup_linear(*pointers_to(out, x, *operands), *sizes)
    return outs


def _torch_linear(
    library: ctypes.CDLL, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> list[Tensor]:
    dtype = x.dtype if multiplies_bf16(library) else torch.float32
    wide = x.to(dtype)
    pairs = zip(weights, biases, strict=True)
    return [F.linear(wide, w.to(dtype), None if bias is None else bias.to(dtype)).to(x.dtype) for w, bias in pairs]


def _native_feed_forward(
    library: ctypes.CDLL, gelu: bool, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor]]:
    inner = [x.new_empty(*x.shape[:-1], len(weight)) for weight in weights]
    out = torch.empty_like(inner[0])
    weights = [weight.contiguous() for weight in weights]
    biases = [None if bias is None else bias.float().contiguous() for bias in biases]
    (gate, up), (gate_weight, up_weight), (gate_bias, up_bias) = _two(inner), _two(weights), _two(biases)
    pointers = pointers_to(out, gate, up, x, gate_weight, up_weight, gate_bias, up_bias)
    sizes = sizes_of(x.numel() // x.shape[-1], x.shape[-1], out.shape[-1])
    library.groundup_feed_forward(*pointers, *sizes, ctypes.c_bool(gelu))
    return out, inner


def _torch_feed_forward(
    library: ctypes.CDLL, gelu: bool, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor]]:
    inner = _torch_linear(library, x, weights, biases)
    out = torch.empty_like(inner[0])
    library.groundup_activate(*pointers_to(out, *_two(inner)), *sizes_of(out.numel()), ctypes.c_bool(gelu))
    return out, inner


def _native_feed_forward_gradients(
    library: ctypes.CDLL, gelu: bool, inner: Sequence[Tensor], grad_RD: Tensor, down: Tensor
) -> Tensor:
    out, down = torch.empty_like(inner[0]), down.contiguous()
    sizes = sizes_of(*grad_RD.shape, out.shape[-1])
    pointers = pointers_to(out, *_two(inner), grad_RD, down)
    library.groundup_feed_forward_gradients(*pointers, *sizes, ctypes.c_bool(gelu))
    return out


def _torch_feed_forward_gradients(
    library: ctypes.CDLL, gelu: bool, inner: Sequence[Tensor], grad_RD: Tensor, down: Tensor
) -> Tensor:
    out = _matmul(library, grad_RD, down)
    pointers = pointers_to(out, *_two(inner))
    library.groundup_activation_gradients(*pointers, *sizes_of(out.numel()), ctypes.c_bool(gelu))
    return out.view_as(inner[0])


def _native_input_gradients(library: ctypes.CDLL, grads_RO: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    grads_RO, weights = ([matrix.contiguous() for matrix in matrices] for matrices in (grads_RO, weights))
    out = torch.empty(len(grads_RO[0]), weights[0].shape[1], dtype=grads_RO[0].dtype)
    operands = zip(grads_RO, weights, strict=True)
    terms = (_Term * len(weights))(*(_Term(left.data_ptr(), right.data_ptr(), len(right)) for left, right in operands))
    library.groundup_summed_matmuls(*pointers_to(out), terms, *sizes_of(len(weights), *out.shape))
    return out


def _torch_input_gradients(library: ctypes.CDLL, grads_RO: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    dtype = grads_RO[0].dtype if multiplies_bf16(library) else torch.float32
    total = grads_RO[0].to(dtype) @ weights[0].to(dtype)
    for grad_RO, weight in zip(grads_RO[1:], weights[1:], strict=True):
        total.addmm_(grad_RO.to(dtype), weight.to(dtype))
    return total.to(grads_RO[0].dtype)


def _native_weight_gradients(library: ctypes.CDLL, grads_RO: Sequence[Tensor], x_RD: Tensor) -> list[Tensor]:
    outs = [torch.empty(grad_RO.shape[1], x_RD.shape[1]) for grad_RO in grads_RO]
    transposed_matmuls(library, outs, grads_RO, x_RD, add=False)
    return outs


def _torch_weight_gradients(library: ctypes.CDLL, grads_RO: Sequence[Tensor], x_RD: Tensor) -> list[Tensor]:
    return [_matmul(library, grad_RO.t(), x_RD, dtype=torch.float32) for grad_RO in grads_RO]


IMPLEMENTATIONS: dict[Operation, dict[Kernel, Callable[..., Any]]] = {
    "linear": {"native": _native_linear, "torch": _torch_linear},
    "feed_forward": {"native": _native_feed_forward, "torch": _torch_feed_forward},
    "feed_forward_gradients": {"native": _native_feed_forward_gradients, "torch": _torch_feed_forward_gradients},
    "input_gradients": {"native": _native_input_gradients, "torch": _torch_input_gradients},
    "weight_gradients": {"native": _native_weight_gradients, "torch": _torch_weight_gradients},
}


class Matmuls:
    """Compute the matmuls of a training step with the chosen kernels.

    Args:
        library: The library of C++ kernels.
        choice: The kernel of each group of matmuls.

    Attributes:
        weights: The bf16 copies of the weights.
    """

    def __init__(self, library: ctypes.CDLL, choice: KernelChoice) -> None:
        self.library = library
        self.choice = choice
        self.weights = RoundedWeights()
        self._kernels: dict[MatmulGroup, Callable[..., Any]] = {}

    def linear(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> list[Tensor]:
        """Return x W^T + b for linear layers that have the same input.

        Args:
            x: Input of shape (..., D).
            weights: Weight of each layer.
            biases: Bias of each layer, or None.
        """
        outs: list[Tensor] = self._kernel("linear", x.shape[-1], map(len, weights))(self.library, x, weights, biases)
        return outs

    def feed_forward(
        self, gelu: bool, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute activation(gate_proj(x)) * up_proj(x), or activation(up_proj(x)) with one weight.

        Args:
            gelu: Whether the activation is GELU with the tanh approximation instead of SiLU.
            x: Contiguous input of shape (..., D).
            weights: Weights of gate_proj and up_proj.
            biases: Bias of each layer, or None.

        Returns:
            The result of shape (..., F), and the outputs of the layers.
        """
        found: tuple[Tensor, list[Tensor]] = self._kernel("feed_forward", x.shape[-1], map(len, weights))(
            self.library, gelu, x, weights, biases
        )
        return found

    def feed_forward_gradients(self, gelu: bool, inner: Sequence[Tensor], grad_RD: Tensor, down: Tensor) -> Tensor:
        """Recompute the result of `feed_forward`, and overwrite the outputs of its layers with their gradients.

        Args:
            gelu: Whether the activation is GELU with the tanh approximation instead of SiLU.
            inner: Outputs of gate_proj and up_proj.
            grad_RD: Gradient of the MLP's output.
            down: Weight of down_proj, of shape (D, F).

        Returns:
            The result of `feed_forward`.
        """
        outputs = (part.shape[-1] for part in inner)
        out: Tensor = self._kernel("feed_forward_gradients", grad_RD.shape[1], outputs)(
            self.library, gelu, inner, grad_RD, down
        )
        return out

    def input_gradients(self, grads_RO: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
        """Return the gradient of the common input of linear layers, of shape (R, D)."""
        total: Tensor = self._kernel("input_gradients", weights[0].shape[1], map(len, weights))(
            self.library, grads_RO, weights
        )
        return total

    def weight_gradients(self, grads_RO: Sequence[Tensor], x_RD: Tensor) -> list[Tensor]:
        """Return the gradient of each weight of linear layers that have the same input, in fp32."""
        outputs = (grad_RO.shape[1] for grad_RO in grads_RO)
        found: list[Tensor] = self._kernel("weight_gradients", x_RD.shape[1], outputs)(self.library, grads_RO, x_RD)
        return found

    def _kernel(self, operation: Operation, inputs: int, outputs: Iterable[int]) -> Callable[..., Any]:
        group = MatmulGroup(operation, inputs, tuple(outputs))
        if group not in self._kernels:
            self._kernels[group] = IMPLEMENTATIONS[operation][self.choice.kernel_of(group)]
        return self._kernels[group]
