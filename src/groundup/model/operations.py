"""The model's operations in PyTorch. `groundup.kernels` implements the same interface with C++ kernels.

All modules of a model share one `Operations` object. Every implementation must compute the same values and gradients,
except for rounding errors (`tests/parity/test_native_operations.py`).

Letters in tensor names: B is the batch size, T the number of queries, S the number of keys, N the number of query
heads, K the number of KV heads, G the number of query heads per KV head, H the head_dim, R the number of rows (tokens),
D the hidden size, and V the vocabulary size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX, SHARED_PREFIX
from groundup.model.families.base import Activation
from groundup.model.scaled_attention import attend, softcapped_attention

_GELUS = {"gelu": "none", "gelu_tanh": "tanh"}  # our names -> PyTorch's names of the approximation


def reciprocal_rms(x32: Tensor, eps: float) -> Tensor:
    """Return 1 / rms(x) for each row of an fp32 tensor, of shape (..., 1)."""
    return torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)


class FrozenLinear(torch.autograd.Function):
    """Compute x W^T + b with frozen weights of another dtype. The cast weights are not saved for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b."""
        ctx.save_for_backward(weight)
        return F.linear(x, weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, Tensor | None]:
        """Return the gradients of x and bias."""
        (weight,) = ctx.saved_tensors
        grad_bias = upstream[0].flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return upstream[0] @ weight.to(upstream[0].dtype), None, grad_bias


class FrozenRMSNorm(torch.autograd.Function):
    """RMSNorm with a frozen weight. For the backward pass, x is saved in its original dtype, not in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return x / rms(x) * weight."""
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        x32 = x.float()
        return weight.to(x.dtype) * (x32 * reciprocal_rms(x32, eps)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of x."""
        x, weight = ctx.saved_tensors
        x32 = x.float()
        r = reciprocal_rms(x32, ctx.eps)
        normed, grad = x32 * r, (upstream[0] * weight.to(x.dtype)).float()
        return (r * (grad - normed * (grad * normed).mean(-1, keepdim=True))).to(x.dtype), None, None


class Gated(torch.autograd.Function):
    """Compute activation(hidden) * up. The activation is recomputed in the backward pass instead of being saved."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, up: Tensor, activation: str) -> Tensor:
        """Return activation(hidden) * up."""
        ctx.save_for_backward(hidden, up)
        ctx.activation = activation
        return apply_activation(hidden, activation) * up

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of hidden and up."""
        hidden, up = ctx.saved_tensors
        grad = upstream[0] * up
        if ctx.activation == "silu":
            grad_hidden = torch.ops.aten.silu_backward(grad, hidden)
        else:
            grad_hidden = torch.ops.aten.gelu_backward(grad, hidden, approximate=_GELUS[ctx.activation])
        return grad_hidden, upstream[0] * apply_activation(hidden, ctx.activation), None


def apply_activation(x: Tensor, activation: str) -> Tensor:
    """Apply the activation function with the given name: SiLU, exact GELU, or GELU with the tanh approximation."""
    return F.silu(x) if activation == "silu" else F.gelu(x, approximate=_GELUS[activation])


# Number of rows of logits per chunk. For a vocabulary of 8,000 tokens, a chunk takes 32 MB in fp32, which is about the
# size of the L3 cache. Larger chunks are not faster.
CHUNK_ROWS = 1024


class Operations:
    """Operations of a model in PyTorch, for any device and dtype.

    Attributes:
        recompute: Whether some activations are recomputed in the backward pass instead of being saved. This takes a few
            percent more compute. It is useful if weights are frozen, because activations then take most of the memory.
    """

    recompute = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return `self`. Copies of a model share its operations, because a kernel library cannot be copied."""
        return self

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b in the dtype of x.

        Args:
            x: The input, of shape (..., I).
            weight: The weight, of shape (O, I), in any dtype.
            bias: The bias, of shape (O,), or None.
        """
        bias = None if bias is None else bias.to(x.dtype)
        if weight.dtype != x.dtype and x.requires_grad and not weight.requires_grad:
            return FrozenLinear.apply(x, weight, bias)
        return F.linear(x, weight.to(x.dtype), bias)

    def linears(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Sequence[Tensor]:
        """Apply several linear layers to the same input.

        Args:
            x: The input, of shape (..., I).
            weights: The weight of each layer, of shape (O, I).
            biases: The bias of each layer, of shape (O,), or None.

        Returns:
            The output of `linear` for each layer.
        """
        return [self.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Apply RMSNorm (arXiv:1910.07467), x / rms(x) * weight, with computations in fp32.

        Args:
            x: The input, of shape (..., D).
            weight: The weight, of shape (D,).
            eps: Constant that is added to the mean square.
        """
        if x.requires_grad and not weight.requires_grad:
            return FrozenRMSNorm.apply(x, weight, eps)
        x32 = x.float()
        # Round before the multiplication with the weight, as transformers does, so that logits in bf16 are equal.
        return weight.to(x.dtype) * (x32 * reciprocal_rms(x32, eps)).to(x.dtype)

    def add_rms_norm(self, x: Tensor, branch: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Add the output of a branch to the residual stream, and apply RMSNorm to the sum.

        Args:
            x: The residual stream, of shape (..., D).
            branch: The output of attention or of the MLP, of shape (..., D). None means that nothing is added.
            weight: The weight of the norm, of shape (D,).
            eps: Constant that is added to the mean square.

        Returns:
            The residual stream after the addition and its norm, both of shape (..., D). The residual stream must be
            used from this result, so that the backward pass can add its gradient to the gradient of the norm.
        """
        x = x if branch is None else x + branch
        return x, self.rms_norm(x, weight, eps)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Apply LayerNorm (arXiv:1607.06450), with computations in fp32.

        Args:
            x: The input, of shape (..., D).
            weight: The weight, of shape (D,).
            bias: The bias, of shape (D,).
            eps: Constant that is added to the variance.
        """
        return F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(x.dtype)

    def add_layer_norm(
        self, x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Add the output of a branch to the residual stream, and apply LayerNorm to the sum; see `add_rms_norm`."""
        x = x if branch is None else x + branch
        return x, self.layer_norm(x, weight, bias, eps)

    def activate(self, activation: Activation, hidden: Tensor, up: Tensor | None = None) -> Tensor:
        """Return activation(hidden) * up (arXiv:2002.05202), or activation(hidden) if `up` is None.

        Args:
            activation: The activation function.
            hidden: Output of gate_proj in a gated MLP, or output of up_proj in an MLP that is not gated.
            up: Output of up_proj in a gated MLP; None in an MLP that is not gated.
        """
        if up is None:
            return apply_activation(hidden, activation)
        if torch.compiler.is_compiling() or not hidden.requires_grad:  # the compiler decides what to recompute
            return apply_activation(hidden, activation) * up
        out: Tensor = Gated.apply(hidden, up, activation)
        return out

    def feed_forward(
        self, x: Tensor, activation: Activation, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> Tensor:
        """Return the output of an MLP: down_proj(activation(gate_proj(x)) * up_proj(x)).

        Args:
            x: The input, of shape (..., D).
            activation: The activation function.
            weights: Weights of gate_proj, up_proj and down_proj. An MLP that is not gated does not have gate_proj.
            biases: Bias of each layer, or None.
        """
        inner = self.linears(x, weights[:-1], biases[:-1])
        return self.linear(self.activate(activation, *inner), weights[-1], biases[-1])

    def rotate(self, x_BTNH: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Apply RoPE, which rotates each pair (x[i], x[i + H/2]) by an angle that depends on the position and on i.

        Args:
            x_BTNH: Queries or keys.
            rope: Cosines and sines of the angles, both of shape (B, T, 1, H). If they have fewer features than x, the
                last features of x are not changed.

        Returns:
            The rotated queries or keys, of shape (B, T, N, H).
        """
        cos, sin = (part.to(x_BTNH.dtype) for part in rope)
        if (width := cos.shape[-1]) < x_BTNH.shape[-1]:
            rotated = self.rotate(x_BTNH[..., :width], rope)
            return torch.cat([rotated, x_BTNH[..., width:]], dim=-1)
        first, second = x_BTNH.chunk(2, dim=-1)
        return x_BTNH * cos + torch.cat([-second, first], dim=-1) * sin

    def rms_norm_rotate(self, x_BTNH: Tensor, weight: Tensor, eps: float, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Apply QK norm, which is an RMSNorm (arXiv:2010.04245), and then RoPE.

        Args:
            x_BTNH: Queries or keys.
            weight: The weight of the norm, of shape (H,) for a norm of each head, or (N H,) for a norm of all heads.
            eps: Constant that is added to the mean square.
            rope: Cosines and sines of the angles; see `rotate`.

        Returns:
            The normalized and rotated queries or keys, of shape (B, T, N, H).
        """
        normed = self.rms_norm(x_BTNH.flatten(2).unflatten(2, (-1, len(weight))), weight, eps)
        return self.rotate(normed.view_as(x_BTNH), rope)

    def attention_mask(self, positions_BT: Tensor, document_ids_BT: Tensor | None, window: int | None) -> Tensor | None:
        """Return the attention mask for `attend`, or None if it is the causal mask.

        A token attends to itself, to earlier tokens of the same document, and to the shared prefix of the document. In
        a layer with a sliding window, it attends to at most `window` tokens, including itself.

        Args:
            positions_BT: Position of each token in its document. A document with a shared prefix starts at the position
                after the prefix.
            document_ids_BT: Index of the document that contains each token, for rows in which documents are packed, or
                `SHARED_PREFIX` for a prefix that is shared by the documents after it, up to the next shared prefix.
                None means that each row is one document.
            window: Size of the sliding window. None means no sliding window.

        Returns:
            Boolean mask of shape (B, 1, T, T). Subclasses may return another type.
        """
        length = positions_BT.shape[1]
        narrow = window is not None and window < length
        if document_ids_BT is None and not narrow:
            return None
        mask_BTS = torch.ones(length, length, dtype=torch.bool, device=positions_BT.device).tril()[None]
        if narrow and window is not None:
            mask_BTS = mask_BTS & (positions_BT[:, :, None] - positions_BT[:, None, :] < window)
        if document_ids_BT is not None:
            same_document_BTS = document_ids_BT[:, None, :] == document_ids_BT[:, :, None]
            in_prefix_BT = document_ids_BT == SHARED_PREFIX
            first_BT = in_prefix_BT & ~F.pad(in_prefix_BT, (1, 0))[:, :-1]
            group_BT = first_BT.cumsum(1)  # number of shared prefixes up to the token
            same_group_BTS = group_BT[:, None, :] == group_BT[:, :, None]
            mask_BTS = mask_BTS & same_group_BTS & (same_document_BTS | in_prefix_BT[:, None, :])
        return mask_BTS[:, None]

    def attend(
        self,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        attn_mask: Tensor | None,
        scale: float,
        softcap: float | None = None,
    ) -> Tensor:
        """Compute attention, softmax(scale q k^T) v, of shape (B, T, N, H).

        Args:
            q_BTNH: Queries.
            k_BSKH: Keys.
            v_BSKH: Values.
            attn_mask: The mask that `attention_mask` returned, or a boolean mask of shape (B, 1, T, S). None means the
                causal mask, or no mask if there is only one query.
            scale: Factor by which the attention scores are multiplied.
            softcap: Scores are replaced by softcap x tanh(scores / softcap). None means no softcap.
        """
        if softcap is not None:
            return softcapped_attention(q_BTNH, k_BSKH, v_BSKH, attn_mask, scale, softcap)
        return attend(q_BTNH, k_BSKH, v_BSKH, attn_mask, scale, recompute=self.recompute)

    def logits(self, h_RD: Tensor, weight_VD: Tensor) -> Tensor:
        """Return h W^T in the dtype of both matrices, without gradient.

        Args:
            h_RD: Hidden states.
            weight_VD: Weight of the output head.
        """
        return F.linear(h_RD, weight_VD)

    def matmul(self, left_RO: Tensor, right_OD: Tensor, out_RD: Tensor) -> Tensor:
        """Write the product of two matrices to `out_RD`, and return it."""
        return torch.mm(left_RO, right_OD, out=out_RD)

    def chunk_rows(self, vocab_size: int) -> int:
        """Return the number of rows of logits that the loss function computes in one chunk."""
        return CHUNK_ROWS

    def nll_and_residual(self, logits_RV: Tensor, labels_R: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy loss of each row and the gradient of the loss with respect to the logits.

        Args:
            logits_RV: The logits. They may be overwritten.
            labels_R: Token id of each label. For IGNORE_INDEX, the loss and the gradient are 0.
            z_loss: Coefficient of the z-loss, logsumexp^2. It contributes to the gradient, but not to the loss.

        Returns:
            The negative log-likelihood of shape (R,) in fp32, and the gradient (softmax - onehot) of shape (R, V) in
            the dtype of the logits.
        """
        logits = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
        scored_R1 = (labels_R != IGNORE_INDEX).unsqueeze(1)
        targets_R1 = labels_R.clamp(min=0).unsqueeze(1)
        lse_R1 = logits.logsumexp(1, keepdim=True)
        nll_R1 = (lse_R1 - logits.gather(1, targets_R1)) * scored_R1
        # Compute in place, because a copy takes 100 MB for 512 rows and a vocabulary of 49,000 tokens.
        softmax_RV = logits.sub_(lse_R1).exp_()
        if z_loss:
            softmax_RV.mul_(1 + 2 * z_loss * lse_R1)
        residual_RV = softmax_RV.scatter_add_(1, targets_R1, -torch.ones_like(lse_R1)).mul_(scored_R1)
        return nll_R1.squeeze(1), residual_RV.to(logits_RV.dtype)

    def rounded(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a weight in the dtype of the activations, without gradient."""
        return weight.detach().to(dtype)

    def transposed_matmul(self, out_VD: Tensor, left_RV: Tensor, right_RD: Tensor, *, add: bool) -> None:
        """Compute the gradient of a weight, left^T right, and write it to `out_VD` in place.

        Args:
            out_VD: Tensor for the result.
            left_RV: Gradient of the layer's output.
            right_RD: Input of the layer.
            add: Whether to add the result to `out_VD` instead of overwriting it.
        """
        product = left_RV.t() @ right_RD
        out_VD.add_(product) if add else out_VD.copy_(product)


DEFAULT_OPERATIONS = Operations()


class Accelerated(nn.Module):
    """Base class of modules whose operations can be replaced with `use_operations`."""

    operations = DEFAULT_OPERATIONS


def use_operations(model: nn.Module, operations: Operations) -> None:
    """Replace the operations of all modules of a model, in place.

    Args:
        model: The model.
        operations: The new operations.
    """
    for module in model.modules():
        if isinstance(module, Accelerated):
            module.operations = operations
