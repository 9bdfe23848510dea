"""The model's operations in PyTorch. `groundup.kernels` implements the same interface with C++ kernels.

All modules of a model share one `Operations` object. Every implementation must compute the same values and gradients,
except for rounding errors (`tests/parity/test_native_operations.py`).

Letters in tensor names: B is the batch size, T the number of queries, S the number of keys, N the number of query
heads, K the number of KV heads, G the number of query heads per KV head, H the head_dim, R the number of rows (tokens),
D the hidden size, and V the vocabulary size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX, SHARED_PREFIX
from groundup.model.config import MAX_EXPLICIT_LENGTH
from groundup.model.families.base import Activation

# Number of query blocks in explicit attention. A block skips all keys after its last query, so 2 blocks save a quarter
# of the FLOPs. 4 blocks save another eighth, but the smaller matmuls are slower (measured at T = 512, H = 64).
QUERY_BLOCKS = 2
# With a mask, more and smaller blocks skip the keys that no query of the block attends to. In a row with ten documents,
# they skip half of the keys.
MASKED_QUERY_BLOCKS = 4
# Maximum fraction of the attention scores of `QUERY_BLOCKS` blocks with which the smaller blocks are faster.
_MAX_MASKED_SCORES = 0.75
# Number of queries per block of softcapped attention. With 8192 keys and 8 heads, the fp32 scores take 134 MB.
SOFTCAPPED_QUERIES = 512


def attend(
    q_BTNH: Tensor,
    k_BSKH: Tensor,
    v_BSKH: Tensor,
    mask_B1TS: Tensor | None,
    scale: float,
    *,
    recompute: bool = False,
) -> Tensor:
    """Compute attention, softmax(scale q k^T) v, of shape (B, T, N, H).

    Args:
        q_BTNH: Queries.
        k_BSKH: Keys.
        v_BSKH: Values.
        mask_B1TS: Boolean attention mask. None means the causal mask, or no mask if there is only one query.
        scale: Factor by which the attention scores are multiplied.
        recompute: Whether to recompute the attention weights in the backward pass instead of saving them.
    """
    q_BNTH, k_BKSH, v_BKSH = (x.transpose(1, 2) for x in (q_BTNH, k_BSKH, v_BSKH))
    if _explicit_is_faster(q_BNTH, k_BKSH):
        return explicit_attention(q_BNTH, k_BKSH, v_BKSH, mask_B1TS, scale, recompute=recompute).transpose(1, 2)
    if mask_B1TS is not None and q_BNTH.device.type == "cuda":
        # On CUDA, only flash attention supports GQA, and flash attention does not support masks. If keys and values
        # were not repeated, PyTorch would use the math kernel, which saves all attention scores.
        k_BKSH, v_BKSH = (repeat_kv(x_BKSH, q_BNTH.shape[1]) for x_BKSH in (k_BKSH, v_BKSH))
    out_BNTH = F.scaled_dot_product_attention(
        q_BNTH,
        k_BKSH,
        v_BKSH,
        attn_mask=mask_B1TS,
        is_causal=mask_B1TS is None and q_BTNH.shape[1] > 1,
        scale=scale,
        enable_gqa=q_BNTH.shape[1] != k_BKSH.shape[1],
    )
    return out_BNTH.transpose(1, 2)


def softcapped_attention(
    q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, attn_mask_B1TS: Tensor | None, scale: float, softcap: float
) -> Tensor:
    """Compute softcapped attention, softmax(softcap tanh(scale q k^T / softcap)) v, of shape (B, T, N, H).

    Gemma 2 uses softcapped attention (arXiv:2408.00118).

    Args:
        q_BTNH: Queries.
        k_BSKH: Keys.
        v_BSKH: Values.
        attn_mask_B1TS: Boolean attention mask. None means the causal mask.
        scale: Factor by which the attention scores are multiplied.
        softcap: Upper bound of the magnitude of attention scores.
    """
    q_BKGTH = q_BTNH.transpose(1, 2).unflatten(1, (k_BSKH.shape[2], -1))
    k_BKSH, v_BKSH = (x_BSKH.transpose(1, 2) for x_BSKH in (k_BSKH, v_BSKH))
    length = q_BTNH.shape[1]
    cached = k_BSKH.shape[1] - length  # number of cached keys, which precede the first query
    outs = []
    for start in range(0, length, SOFTCAPPED_QUERIES):
        end = min(start + SOFTCAPPED_QUERIES, length)
        keys = cached + end  # these queries do not attend to later keys
        scores = _matmul(q_BKGTH[:, :, :, start:end], k_BKSH[:, :, :keys].mT).float()
        attn_mask = _block_mask(start, end, keys, attn_mask_B1TS, scores.device)
        scores = (softcap * torch.tanh(scores * (scale / softcap))).masked_fill(~attn_mask, float("-inf"))
        outs.append(_matmul(scores.softmax(-1).to(q_BTNH.dtype), v_BKSH[:, :, :keys]))
    return torch.cat(outs, dim=3).flatten(1, 2).transpose(1, 2)


def repeat_kv(x_BKSH: Tensor, n_heads: int) -> Tensor:
    """Repeat keys or values for all query heads of a group. The shape changes from (B, K, S, H) to (B, N, S, H)."""
    n_kv_heads = x_BKSH.shape[1]
    return x_BKSH if n_kv_heads == n_heads else x_BKSH.repeat_interleave(n_heads // n_kv_heads, dim=1)


def _explicit_is_faster(q_BNTH: Tensor, k_BKSH: Tensor) -> bool:
    """Return whether explicit attention is faster than PyTorch's kernel.

    On CPUs, the backward pass of PyTorch's kernel takes 5 times as long as its forward pass.
    """
    length = q_BNTH.shape[2]
    return (
        q_BNTH.device.type == "cpu"
        and torch.is_grad_enabled()
        and length == k_BKSH.shape[2]
        and length <= MAX_EXPLICIT_LENGTH
        and length % QUERY_BLOCKS == 0
    )


def explicit_attention(
    q_BNTH: Tensor,
    k_BKTH: Tensor,
    v_BKTH: Tensor,
    mask_B1TT: Tensor | None,
    scale: float,
    *,
    recompute: bool = False,
) -> Tensor:
    """Compute attention, of shape (B, N, T, H), with matmuls over blocks of queries and a custom backward pass.

    Args:
        q_BNTH: Queries.
        k_BKTH: Keys.
        v_BKTH: Values.
        mask_B1TT: Boolean attention mask, which must hide all later tokens. None means the causal mask.
        scale: Factor by which the attention scores are multiplied.
        recompute: Whether to recompute the attention weights in the backward pass instead of saving them.
    """
    batch, heads, length, head_dim = q_BNTH.shape
    q_BKGTH = q_BNTH.reshape(batch, k_BKTH.shape[1], -1, length, head_dim)
    out: Tensor = _ExplicitAttention.apply(q_BKGTH, k_BKTH, v_BKTH, mask_B1TT, scale, recompute)
    return out.reshape(batch, heads, length, head_dim)


class _ExplicitAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BKGTH: Tensor,
        k_BKTH: Tensor,
        v_BKTH: Tensor,
        mask_B1TT: Tensor | None,
        scale: float,
        recompute: bool,
    ) -> Tensor:
        saved, outs = [], []
        blocks = _blocks(q_BKGTH.shape[3], mask_B1TT)
        for block in blocks:
            p_BKGTS = _attention_weights(q_BKGTH, k_BKTH, mask_B1TT, scale, block)
            if not recompute:
                saved.append(p_BKGTS)
            outs.append(_matmul(p_BKGTS, v_BKTH[:, :, block.keys]))
        ctx.save_for_backward(q_BKGTH, k_BKTH, v_BKTH, mask_B1TT, *saved)
        ctx.scale, ctx.blocks = scale, blocks
        return torch.cat(outs, dim=3)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q_BKGTH, k_BKTH, v_BKTH, mask_B1TT, *saved = ctx.saved_tensors
        scale = ctx.scale
        grad_q = []
        grad_k, grad_v = torch.zeros_like(k_BKTH), torch.zeros_like(v_BKTH)
        for number, block in enumerate(ctx.blocks):
            p_BKGTS = saved[number] if saved else _attention_weights(q_BKGTH, k_BKTH, mask_B1TT, scale, block)
            g_BKGTH = upstream[0][:, :, :, block.queries]
            grad_p = _matmul(g_BKGTH, v_BKTH[:, :, block.keys].mT).float()
            p32 = p_BKGTS.float()
            grad_s = (p32 * (grad_p - (grad_p * p32).sum(-1, keepdim=True)) * scale).to(q_BKGTH.dtype)
            grad_q.append(_matmul(grad_s, k_BKTH[:, :, block.keys]))
            grad_k[:, :, block.keys] += _matmul_transposed(grad_s, q_BKGTH[:, :, :, block.queries])
            grad_v[:, :, block.keys] += _matmul_transposed(p_BKGTS, g_BKGTH)
        return torch.cat(grad_q, dim=3), grad_k, grad_v, None, None, None


class _Block(NamedTuple):
    """A block of queries, and the indices of the keys to which at least one of the queries attends."""

    queries: slice
    keys: slice | Tensor


def _attention_weights(
    q_BKGTH: Tensor, k_BKTH: Tensor, mask_B1TT: Tensor | None, scale: float, block: _Block
) -> Tensor:
    """Return the attention weights between the queries and the keys of a block, of shape (B, K, G, T, S)."""
    scores = _matmul(q_BKGTH[:, :, :, block.queries], k_BKTH[:, :, block.keys].mT)
    start, end = block.queries.start, block.queries.stop
    attn_mask = _block_mask(start, end, end, mask_B1TT, scores.device)
    if isinstance(block.keys, Tensor):
        attn_mask = attn_mask[..., block.keys]
    return (scores.float() * scale).masked_fill(~attn_mask, float("-inf")).softmax(-1).to(q_BKGTH.dtype)


def _blocks(length: int, mask_B1TT: Tensor | None) -> list[_Block]:
    """Divide the queries into blocks. If the mask hides many keys, the blocks are smaller and skip them."""
    causal = _ranges(length, QUERY_BLOCKS)
    if mask_B1TT is not None and length % MASKED_QUERY_BLOCKS == 0 and not torch.compiler.is_compiling():
        smaller = _ranges(length, MASKED_QUERY_BLOCKS)
        keys = [mask_B1TT[:, 0, start:end, :end].any(1).any(0).nonzero().squeeze(1) for start, end in smaller]
        n_scores = length // MASKED_QUERY_BLOCKS * sum(map(len, keys))
        if n_scores <= _MAX_MASKED_SCORES * sum((end - start) * end for start, end in causal):
            return [_Block(slice(*each), attended) for each, attended in zip(smaller, keys, strict=True)]
    return [_Block(slice(start, end), slice(end)) for start, end in causal]


def _ranges(length: int, count: int) -> list[tuple[int, int]]:
    size = length // count
    return [(start, start + size) for start in range(0, length, size)]


def _block_mask(start: int, end: int, keys: int, mask_B1TS: Tensor | None, device: torch.device) -> Tensor:
    """Return the attention mask for the queries `start:end`, whose own keys are the last of the first `keys` keys.

    The mask can be broadcast to the shape (B, K, G, T, S).
    """
    if mask_B1TS is not None:
        return mask_B1TS[:, :, None, start:end, :keys]
    return torch.arange(keys - (end - start), keys, device=device)[:, None] >= torch.arange(keys, device=device)


def _matmul(a_BKGTX: Tensor, b_BKXY: Tensor) -> Tensor:
    """Multiply all query heads that share a KV head in one matmul, so that keys and values need not be repeated."""
    return (a_BKGTX.flatten(2, 3) @ b_BKXY).unflatten(2, a_BKGTX.shape[2:4])


def _matmul_transposed(a_BKGTX: Tensor, b_BKGTY: Tensor) -> Tensor:
    return a_BKGTX.flatten(2, 3).mT @ b_BKGTY.flatten(2, 3)


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

        A token attends to itself, to earlier tokens of the same document, and to the shared prefix of its row. In a
        layer with a sliding window, it attends to at most `window` tokens, including itself.

        Args:
            positions_BT: Position of each token in its document. If a row has a shared prefix, its documents start at
                the position after the prefix.
            document_ids_BT: Index of the document that contains each token, for rows in which documents are packed, or
                `SHARED_PREFIX` for a prefix that precedes each document of the row. None means that each row is one
                document.
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
            keys_B1S = document_ids_BT[:, None, :]
            mask_BTS = mask_BTS & ((keys_B1S == document_ids_BT[:, :, None]) | (keys_B1S == SHARED_PREFIX))
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
