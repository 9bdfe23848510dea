"""Implementation of the model's operations with the C++ kernels of `native/`, for bf16 training on a CPU.

The PyTorch implementation processes inputs that the kernels do not support (other dtypes, some sizes, a KV cache).

Shape letters: B is the batch size, T the sequence length, S the number of keys, N the number of query heads, K the
number of key/value heads, H the head dimension, R the number of rows (tokens), D the hidden size, and V the vocabulary
size.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from groundup.core.types import SHARED_PREFIX
from groundup.kernels.kernel_choice import ACTIVATIONS, TILE, KernelChoice, MatmulGroup
from groundup.kernels.matmuls import Matmuls, transposed_matmuls
from groundup.kernels.native_layers import FeedForward, Linears
from groundup.kernels.native_library import multiplies_bf16, pointers_to, sizes_of
from groundup.model import Activation, Operations, SequenceClassifier, Transformer
from groundup.model.flops import MAX_CHUNK_LOGITS, MAX_CHUNK_ROWS
from groundup.optim import Orthogonalize, newton_schulz
from groundup.optim.muon import COEFFICIENTS, EPS, STEPS

# Matmuls are twice as fast if the number of rows is a multiple of 256.
_CHUNK_BLOCK = 256


class NativeOperations(Operations):
    """Operations that use C++ kernels for bf16 tensors on a CPU. Each operation has a custom backward pass.

    Args:
        library: The library of C++ kernels.
        choice: The kernel of each matmul of linear layers and MLPs.
    """

    def __init__(self, library: ctypes.CDLL, choice: KernelChoice | None = None) -> None:
        self.kernels = library
        self.matmuls = Matmuls(library, choice or KernelChoice())
        self._emulated = not multiplies_bf16(library)  # If so, no matmul may be a bf16 matmul of PyTorch.

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `Operations.linear`."""
        if not (_is_cpu_bf16(x) and self._computes([weight])):
            return super().linear(x, weight, bias)
        outs: tuple[Tensor] = Linears.apply(self.matmuls, x, weight, bias)
        return outs[0]

    def linears(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Sequence[Tensor]:
        """See `Operations.linears`."""
        if not (_is_cpu_bf16(x) and self._computes(weights)):
            return super().linears(x, weights, biases)
        outs: tuple[Tensor, ...] = Linears.apply(self.matmuls, x, *weights, *biases)
        return outs

    def _computes(self, weights: Sequence[Tensor]) -> bool:
        """Return whether linear layers with these weights are computed by `Linears`."""
        if self._emulated:
            return all(weight.is_floating_point() for weight in weights)
        return all(map(_is_trained, weights))

    def matmul(self, left_RO: Tensor, right_OD: Tensor, out_RD: Tensor) -> Tensor:
        """See `Operations.matmul`."""
        if not (self._emulated and _is_cpu_bf16(left_RO)):
            return super().matmul(left_RO, right_OD, out_RD)
        return out_RD.copy_(self.matmuls.input_gradients([left_RO], [right_OD]))

    def logits(self, h_RD: Tensor, weight_VD: Tensor) -> Tensor:
        """See `Operations.logits`."""
        if not (self._emulated and _is_cpu_bf16(h_RD)):
            return super().logits(h_RD, weight_VD)
        return self.matmuls.linear(h_RD, [weight_VD], [None])[0]

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See `Operations.rms_norm`."""
        if not (_is_cpu_bf16(x) and weight.dtype == torch.float32):
            return super().rms_norm(x, weight, eps)
        return _RMSNorm.apply(x, None, weight, eps, self.kernels)[1]

    def add_rms_norm(self, x: Tensor, branch: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """See `Operations.add_rms_norm`."""
        if not (_can_add(x, branch) and weight.dtype == torch.float32):
            return super().add_rms_norm(x, branch, weight, eps)
        return _RMSNorm.apply(x, branch, weight, eps, self.kernels)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """See `Operations.layer_norm`."""
        if not (_is_cpu_bf16(x) and weight.dtype == torch.float32):
            return super().layer_norm(x, weight, bias, eps)
        return _LayerNorm.apply(x, None, weight, bias, eps, self.kernels)[1]

    def add_layer_norm(
        self, x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """See `Operations.add_layer_norm`."""
        if not (_can_add(x, branch) and weight.dtype == torch.float32):
            return super().add_layer_norm(x, branch, weight, bias, eps)
        return _LayerNorm.apply(x, branch, weight, bias, eps, self.kernels)

    def activate(self, activation: Activation, hidden: Tensor, up: Tensor | None = None) -> Tensor:
        """See `Operations.activate`."""
        if not (_is_cpu_bf16(hidden) and activation in ACTIVATIONS):
            return super().activate(activation, hidden, up)
        out: Tensor = _Activate.apply(hidden, up, activation == "gelu_tanh", self.kernels)
        return out

    def feed_forward(
        self, x: Tensor, activation: Activation, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> Tensor:
        """See `Operations.feed_forward`."""
        group = MatmulGroup("feed_forward", x.shape[-1], tuple(map(len, weights[:-1])))
        supported = _is_cpu_bf16(x) and all(map(_is_trained, weights)) and group.is_native
        if not (supported and activation in ACTIVATIONS):
            return super().feed_forward(x, activation, weights, biases)
        out: Tensor = FeedForward.apply(self.matmuls, activation == "gelu_tanh", x, *weights, *biases)
        return out

    def rotate(self, x_BTNH: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """See `Operations.rotate`."""
        if not _can_rotate(x_BTNH, rope):
            return super().rotate(x_BTNH, rope)
        out: Tensor = _Rotate.apply(x_BTNH, *rope, self.kernels)
        return out

    def rms_norm_rotate(self, x_BTNH: Tensor, weight: Tensor, eps: float, rope: tuple[Tensor, Tensor]) -> Tensor:
        """See `Operations.rms_norm_rotate`."""
        if not (_can_rotate(x_BTNH, rope) and weight.dtype == torch.float32):
            return super().rms_norm_rotate(x_BTNH, weight, eps, rope)
        out: Tensor = _RMSNormRotate.apply(x_BTNH, weight, *rope, eps, self.kernels)
        return out

    def attention_mask(self, positions_BT: Tensor, document_ids_BT: Tensor | None, window: int | None) -> Tensor | None:
        """Return the keys that each token attends to, as int32 of shape (3, B, T).

        Query t attends to the keys `mask[0, b, t]` to t of its own document, and to the keys `mask[1, b, t]` to
        `mask[2, b, t]` - 1 of its shared prefix. If documents may not be contiguous, return a boolean mask.
        """
        indices_T = torch.arange(positions_BT.shape[1], dtype=torch.int32)
        keys_3BT = torch.zeros(3, *positions_BT.shape, dtype=torch.int32)
        starts_BT, prefix_starts_BT, prefix_ends_BT = keys_3BT
        if document_ids_BT is not None:
            in_prefix_BT = document_ids_BT == SHARED_PREFIX
            ascending_BT = (document_ids_BT == document_ids_BT.cummax(1).values) | in_prefix_BT
            if positions_BT.device.type != "cpu" or not ascending_BT.all():  # The documents may not be contiguous.
                return super().attention_mask(positions_BT, document_ids_BT, window)
            changes_BT = document_ids_BT.diff(dim=1) != 0
            starts_BT[:, 1:] = torch.where(changes_BT, indices_T[1:], 0).cummax(1).values
            prefix_starts_BT[:] = torch.where(in_prefix_BT, starts_BT, 0).cummax(1).values
            prefix_ends_BT[:] = torch.where(in_prefix_BT, indices_T + 1, 0).cummax(1).values
            prefix_ends_BT.masked_fill_(in_prefix_BT, 0)  # tokens of a prefix attend to it as to their own document
        if window is not None:
            starts_BT[:] = torch.maximum(starts_BT, indices_T + 1 - window)
            prefix_starts_BT += (positions_BT + 1 - window).clamp(min=0)
        return keys_3BT

    def attend(
        self,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        attn_mask: Tensor | None,
        scale: float,
        softcap: float | None = None,
    ) -> Tensor:
        """See `Operations.attend`."""
        if attn_mask is None or attn_mask.dtype != torch.int32:
            return super().attend(q_BTNH, k_BSKH, v_BSKH, attn_mask, scale, softcap)
        if softcap is not None or not (_is_cpu_bf16(q_BTNH) and q_BTNH.shape[-1] % 32 == 0):
            return super().attend(q_BTNH, k_BSKH, v_BSKH, _mask(attn_mask), scale, softcap)
        out: Tensor = _Attend.apply(q_BTNH, k_BSKH, v_BSKH, attn_mask, scale, self.kernels)
        return out

    def chunk_rows(self, vocab_size: int) -> int:
        """See `Operations.chunk_rows`."""
        rows = min(MAX_CHUNK_ROWS, MAX_CHUNK_LOGITS // vocab_size)
        return max(_CHUNK_BLOCK, rows // _CHUNK_BLOCK * _CHUNK_BLOCK)

    def nll_and_residual(self, logits_RV: Tensor, labels_R: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """See `Operations.nll_and_residual`."""
        if not _is_cpu_bf16(logits_RV):
            return super().nll_and_residual(logits_RV, labels_R, z_loss)
        logits_RV, labels_R = logits_RV.contiguous(), labels_R.contiguous()
        nll_R = torch.empty(len(logits_RV))
        pointers, sizes = pointers_to(nll_R, logits_RV, labels_R), sizes_of(*logits_RV.shape)
        self.kernels.groundup_nll_and_residual(*pointers, *sizes, ctypes.c_float(z_loss))
        return nll_R, logits_RV

    def rounded(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """See `Operations.rounded`."""
        return self.matmuls.weights.of(weight) if dtype == torch.bfloat16 else super().rounded(weight, dtype)

    def transposed_matmul(self, out_VD: Tensor, left_RV: Tensor, right_RD: Tensor, *, add: bool) -> None:
        """See `Operations.transposed_matmul`."""
        if _is_cpu_bf16(left_RV) and out_VD.dtype == torch.float32 and out_VD.shape[1] % TILE == 0:
            transposed_matmuls(self.kernels, [out_VD], [left_RV], right_RD, add=add)
        else:
            super().transposed_matmul(out_VD, left_RV, right_RD, add=add)

    def orthogonalize(self, matrices: Sequence[Tensor]) -> Sequence[Tensor]:
        """Orthogonalize matrices for Muon, in place, as `groundup.optim.newton_schulz` does.

        If a size of the matrices is not a multiple of 32, the PyTorch implementation is used.

        Args:
            matrices: Matrices that have the same shape.

        Returns:
            The orthogonalized matrices.
        """
        first = matrices[0]
        if first.dtype != torch.float32 or first.device.type != "cpu" or not _in_tiles(first, 32):
            return newton_schulz(matrices)
        matrices = [matrix.contiguous() for matrix in matrices]
        addresses = (ctypes.c_void_p * len(matrices))(*pointers_to(*matrices))
        numbers = (ctypes.c_float(number) for number in (*COEFFICIENTS, EPS))
        self.kernels.groundup_orthogonalize(addresses, *sizes_of(len(matrices), *first.shape, STEPS), *numbers)
        return matrices


def orthogonalize_of(model: Transformer | SequenceClassifier) -> Orthogonalize:
    """Return Muon's orthogonalization, with C++ kernels if the model uses C++ kernels, otherwise with PyTorch."""
    operations = model.operations
    if isinstance(operations, NativeOperations):
        return operations.orthogonalize
    return partial(newton_schulz, dtype=model.model.compute_dtype or torch.float32)


def _is_cpu_bf16(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16 and x.device.type == "cpu"


def _can_add(x: Tensor, branch: Tensor | None) -> bool:
    return _is_cpu_bf16(x) and (branch is None or (_is_cpu_bf16(branch) and branch.shape == x.shape))


def _can_rotate(x_BTNH: Tensor, rope: tuple[Tensor, Tensor]) -> bool:
    cos = rope[0]
    return _is_cpu_bf16(x_BTNH) and _is_cpu_bf16(cos) and cos.numel() * x_BTNH.shape[2] == x_BTNH.numel()


def _is_trained(weight: Tensor) -> bool:
    return torch.is_grad_enabled() and weight.requires_grad and _in_tiles(weight)


def _in_tiles(weight: Tensor, size: int = TILE) -> bool:
    return weight.shape[0] % size == 0 and weight.shape[1] % size == 0


def _mask(keys_3BT: Tensor) -> Tensor:
    """Return the boolean mask (B, 1, T, T) for a result of `NativeOperations.attention_mask`."""
    starts_BT1, prefix_starts_BT1, prefix_ends_BT1 = keys_3BT[..., None]
    keys_S = torch.arange(starts_BT1.shape[1])
    own_BTS = (keys_S >= starts_BT1) & (keys_S <= keys_S[:, None])
    return (own_BTS | ((keys_S >= prefix_starts_BT1) & (keys_S < prefix_ends_BT1)))[:, None]


class _RMSNorm(torch.autograd.Function):
    """x + branch, and its RMSNorm. The backward pass also adds the gradient of the residual stream."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, branch: Tensor | None, weight: Tensor, eps: float, kernels: ctypes.CDLL
    ) -> tuple[Tensor, Tensor]:
        x, branch, total = _residual_stream(x, branch)
        ctx.save_for_backward(total, weight)
        ctx.shape = (*sizes_of(x.numel() // x.shape[-1], x.shape[-1]), ctypes.c_float(eps))
        ctx.kernels, ctx.has_branch = kernels, branch is not None
        ctx.set_materialize_grads(False)
        out = torch.empty_like(x)
        kernels.groundup_rms_norm(*pointers_to(out, total, x, branch, weight), *ctx.shape)
        return total, out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        residual, grad = _norm_gradients(upstream, x)
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        pointers = pointers_to(grad_x, grad_weight, grad, residual, x, weight)
        ctx.kernels.groundup_rms_norm_gradients(*pointers, *ctx.shape)
        return grad_x, grad_x if ctx.has_branch else None, grad_weight, None, None


class _LayerNorm(torch.autograd.Function):
    """x + branch, and its LayerNorm. The backward pass also adds the gradient of the residual stream."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float, kernels: ctypes.CDLL
    ) -> tuple[Tensor, Tensor]:
        x, branch, total = _residual_stream(x, branch)
        ctx.save_for_backward(total, weight)
        ctx.shape = (*sizes_of(x.numel() // x.shape[-1], x.shape[-1]), ctypes.c_float(eps))
        ctx.kernels, ctx.has_branch = kernels, branch is not None
        ctx.set_materialize_grads(False)
        out = torch.empty_like(x)
        kernels.groundup_layer_norm(*pointers_to(out, total, x, branch, weight, bias), *ctx.shape)
        return total, out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        residual, grad = _norm_gradients(upstream, x)
        grad_x, grad_both = torch.empty_like(x), torch.empty(2, len(weight))
        pointers = pointers_to(grad_x, grad_both, grad, residual, x, weight)
        ctx.kernels.groundup_layer_norm_gradients(*pointers, *ctx.shape)
        return grad_x, grad_x if ctx.has_branch else None, grad_both[0], grad_both[1], None, None


def _residual_stream(x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return contiguous inputs of a norm, and the tensor for their sum. Without a branch, the sum is x itself."""
    x = x.contiguous()
    return (x, None, x) if branch is None else (x, branch.contiguous(), torch.empty_like(x))


def _norm_gradients(upstream: Sequence[Tensor | None], x: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return the contiguous gradients of a norm's two outputs: of the residual stream (or None) and of the norm.

    The caller keeps them in variables, so that they stay allocated until the kernel ends.
    """
    residual, grad = upstream
    return (
        None if residual is None else residual.contiguous(),
        torch.zeros_like(x) if grad is None else grad.contiguous(),
    )


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor | None, gelu: bool, kernels: ctypes.CDLL) -> Tensor:
        gate = gate.contiguous()
        up = None if up is None else up.contiguous()
        ctx.save_for_backward(gate, up)
        ctx.gelu, ctx.kernels = ctypes.c_bool(gelu), kernels
        out = torch.empty_like(gate)
        kernels.groundup_activate(*pointers_to(out, gate, up), *sizes_of(gate.numel()), ctx.gelu)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        gate, up = ctx.saved_tensors
        grad = upstream[0].contiguous()
        grad_gate, grad_up = torch.empty_like(gate), None if up is None else torch.empty_like(up)
        pointers = pointers_to(grad_gate, grad_up, grad, gate, up)
        ctx.kernels.groundup_activate_gradients(*pointers, *sizes_of(gate.numel()), ctx.gelu)
        return grad_gate, grad_up, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTNH: Tensor, cos: Tensor, sin: Tensor, kernels: ctypes.CDLL) -> Tensor:
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(cos, sin)
        ctx.kernels = kernels
        return _rotated(kernels, x_BTNH, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(ctx.kernels, upstream[0], cos, sin, -1.0), None, None, None


def _rotated(kernels: ctypes.CDLL, x_BTNH: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    x_BTNH = x_BTNH.contiguous()
    out = torch.empty_like(x_BTNH)
    heads, head_dim = x_BTNH.shape[2:]
    sizes = sizes_of(cos.numel() // head_dim, heads, head_dim // 2)
    kernels.groundup_rotate(*pointers_to(out, x_BTNH, cos, sin), *sizes, ctypes.c_float(direction))
    return out


class _RMSNormRotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BTNH: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float, kernels: ctypes.CDLL
    ) -> Tensor:
        x_BTNH, cos, sin = x_BTNH.contiguous(), cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(x_BTNH, weight, cos, sin)
        ctx.kernels, out = kernels, torch.empty_like(x_BTNH)
        heads, head_dim = x_BTNH.shape[2:]
        sizes = sizes_of(cos.numel() // head_dim, heads, head_dim // 2, len(weight))
        ctx.shape = (*sizes, ctypes.c_float(eps))
        kernels.groundup_rms_norm_rotate(*pointers_to(out, x_BTNH, weight, cos, sin), *ctx.shape)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved, grad = ctx.saved_tensors, upstream[0].contiguous()
        grad_x, grad_weight = torch.empty_like(saved[0]), torch.empty_like(saved[1])
        pointers = pointers_to(grad_x, grad_weight, grad, *saved)
        ctx.kernels.groundup_rms_norm_rotate_gradients(*pointers, *ctx.shape)
        return grad_x, grad_weight, None, None, None, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, keys_3BT: Tensor, scale: float, kernels: ctypes.CDLL
    ) -> Tensor:
        q_BTNH, k_BTKH, v_BTKH, keys_3BT = (x.contiguous() for x in (q_BTNH, k_BTKH, v_BTKH, keys_3BT))
        B, T, N, H = q_BTNH.shape
        out, lse_BNT = torch.empty_like(q_BTNH), torch.empty(B, N, T)
        ctx.shape = (*sizes_of(B, T, N, k_BTKH.shape[2], H), ctypes.c_float(scale))
        ctx.kernels = kernels
        kernels.groundup_attention(*pointers_to(out, lse_BNT, q_BTNH, k_BTKH, v_BTKH, keys_3BT), *ctx.shape)
        ctx.save_for_backward(lse_BNT, q_BTNH, k_BTKH, v_BTKH, keys_3BT)
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        saved, grad = ctx.saved_tensors, upstream[0].contiguous()
        gradients = [torch.empty_like(x) for x in saved[1:4]]
        pointers = pointers_to(*gradients, grad, *saved)
        ctx.kernels.groundup_attention_gradients(*pointers, *ctx.shape)
        return gradients[0], gradients[1], gradients[2], None, None, None
