"""The arithmetic between a model's weights, in plain PyTorch: what `groundup.distributed` may replace by faster ways.

Each module asks its `operations` for these; one object serves a whole model. A replacement gives the same values and
gradients within the rounding of the dtype (`tests/parity/test_native_operations.py`).

Shape letters: B batch, T queries, S keys, N query heads, K kv heads, H head_dim, R rows (tokens), D dim, V vocab.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.types import IGNORE_INDEX
from groundup.model.config import LONGEST_EXPLICIT
from groundup.model.families.base import Activation

# Query blocks of the explicit path. Each block skips the keys after it: 2 blocks save a quarter of the products,
# 4 a further eighth, which their smaller products lose again (measured at T = 512, H = 64).
QUERY_BLOCKS = 2
SOFTCAPPED_QUERIES = 512  # at once: their fp32 scores at a context of 8192 have 134 MB for 8 heads


def attend(
    q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, mask_B1TS: Tensor | None, scale: float, *, lean: bool = False
) -> Tensor:
    """softmax(scale q k^T) v; causal when there is no mask. Returns (B, T, N, H).

    Args:
        lean: probabilities are computed again for the gradient, and not kept for it.
    """
    q_BNTH, k_BKSH, v_BKSH = (x.transpose(1, 2) for x in (q_BTNH, k_BSKH, v_BSKH))
    if _explicit_is_faster(q_BNTH, k_BKSH):
        return explicit_attention(q_BNTH, k_BKSH, v_BKSH, mask_B1TS, scale, lean=lean).transpose(1, 2)
    if mask_B1TS is not None and q_BNTH.device.type == "cuda":
        # Of PyTorch's kernels there flash attention alone takes groups, and it takes no mask; else all scores are kept.
        k_BKSH, v_BKSH = (for_each_query(x_BKSH, q_BNTH.shape[1]) for x_BKSH in (k_BKSH, v_BKSH))
    out_BNTH = F.scaled_dot_product_attention(
        q_BNTH,
        k_BKSH,
        v_BKSH,
        attn_mask=mask_B1TS,
        is_causal=mask_B1TS is None,
        scale=scale,
        enable_gqa=q_BNTH.shape[1] != k_BKSH.shape[1],
    )
    return out_BNTH.transpose(1, 2)


def softcapped_attention(
    q_BTNH: Tensor, k_BSKH: Tensor, v_BSKH: Tensor, attn_mask_B1TS: Tensor | None, scale: float, softcap: float
) -> Tensor:
    """Return softmax(softcap tanh(scale q k^T / softcap)) v (Gemma 2, arXiv:2408.00118); causal without a mask."""
    q_BKGTH = q_BTNH.transpose(1, 2).unflatten(1, (k_BSKH.shape[2], -1))
    k_BKSH, v_BKSH = (x_BSKH.transpose(1, 2) for x_BSKH in (k_BSKH, v_BSKH))
    length = q_BTNH.shape[1]
    cached = k_BSKH.shape[1] - length  # keys before the first query
    outs = []
    for start in range(0, length, SOFTCAPPED_QUERIES):
        end = min(start + SOFTCAPPED_QUERIES, length)
        keys = cached + end  # none of these queries attends to later ones
        scores = _times(q_BKGTH[:, :, :, start:end], k_BKSH[:, :, :keys].mT).float()
        attn_mask = _visible(start, end, keys, attn_mask_B1TS, scores.device)
        scores = (softcap * torch.tanh(scores * (scale / softcap))).masked_fill(~attn_mask, float("-inf"))
        outs.append(_times(scores.softmax(-1).to(q_BTNH.dtype), v_BKSH[:, :, :keys]))
    return torch.cat(outs, dim=3).flatten(1, 2).transpose(1, 2)


def for_each_query(x_BKSH: Tensor, n_heads: int) -> Tensor:
    """Keys or values with a head for each query head: each repeated for the query heads of its group."""
    n_kv_heads = x_BKSH.shape[1]
    return x_BKSH if n_kv_heads == n_heads else x_BKSH.repeat_interleave(n_heads // n_kv_heads, dim=1)


def _explicit_is_faster(q_BNTH: Tensor, k_BKSH: Tensor) -> bool:
    """On a CPU, PyTorch's fused attention is slow backwards (5 x its forward): train with plain products instead."""
    length = q_BNTH.shape[2]
    return (
        q_BNTH.device.type == "cpu"
        and torch.is_grad_enabled()
        and length == k_BKSH.shape[2]
        and length <= LONGEST_EXPLICIT
        and length % QUERY_BLOCKS == 0
    )


def explicit_attention(
    q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, mask_B1TT: Tensor | None, scale: float, *, lean: bool = False
) -> Tensor:
    """Causal attention with its own backward, as matrix products over blocks of queries. Returns (B, N, T, H)."""
    batch, heads, length, head_dim = q_BNTH.shape
    q_BKGTH = q_BNTH.reshape(batch, k_BKTH.shape[1], -1, length, head_dim)
    out: Tensor = _ExplicitAttention.apply(q_BKGTH, k_BKTH, v_BKTH, mask_B1TT, scale, lean)
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
        lean: bool,
    ) -> Tensor:
        kept, outs = [], []
        for start, end in _blocks(q_BKGTH.shape[3]):
            p_BKGTS = _probabilities(q_BKGTH, k_BKTH, mask_B1TT, scale, start, end)
            if not lean:
                kept.append(p_BKGTS)
            outs.append(_times(p_BKGTS, v_BKTH[:, :, :end]))
        ctx.save_for_backward(q_BKGTH, k_BKTH, v_BKTH, mask_B1TT, *kept)
        ctx.scale = scale
        return torch.cat(outs, dim=3)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q_BKGTH, k_BKTH, v_BKTH, mask_B1TT, *kept = ctx.saved_tensors
        scale = ctx.scale
        grad_q = []
        grad_k, grad_v = torch.zeros_like(k_BKTH), torch.zeros_like(v_BKTH)
        for number, (start, end) in enumerate(_blocks(q_BKGTH.shape[3])):
            p_BKGTS = kept[number] if kept else _probabilities(q_BKGTH, k_BKTH, mask_B1TT, scale, start, end)
            g_BKGTH = upstream[0][:, :, :, start:end]
            grad_p = _times(g_BKGTH, v_BKTH[:, :, :end].mT).float()
            p32 = p_BKGTS.float()
            grad_s = (p32 * (grad_p - (grad_p * p32).sum(-1, keepdim=True)) * scale).to(q_BKGTH.dtype)
            grad_q.append(_times(grad_s, k_BKTH[:, :, :end]))
            grad_k[:, :, :end] += _transposed_times(grad_s, q_BKGTH[:, :, :, start:end])
            grad_v[:, :, :end] += _transposed_times(p_BKGTS, g_BKGTH)
        return torch.cat(grad_q, dim=3), grad_k, grad_v, None, None, None


def _probabilities(
    q_BKGTH: Tensor, k_BKTH: Tensor, mask_B1TT: Tensor | None, scale: float, start: int, end: int
) -> Tensor:
    """Of the queries `start:end` over the keys up to `end`, (B, K, G, T, S)."""
    scores = _times(q_BKGTH[:, :, :, start:end], k_BKTH[:, :, :end].mT)
    seen = _visible(start, end, end, mask_B1TT, scores.device)
    return (scores.float() * scale).masked_fill(~seen, float("-inf")).softmax(-1).to(q_BKGTH.dtype)


def _blocks(length: int) -> list[tuple[int, int]]:
    size = length // QUERY_BLOCKS
    return [(start, start + size) for start in range(0, length, size)]


def _visible(start: int, end: int, keys: int, mask_B1TS: Tensor | None, device: torch.device) -> Tensor:
    """Which of the first `keys` keys the queries `start:end` may see, broadcastable to (B, K, G, T, S)."""
    if mask_B1TS is not None:
        return mask_B1TS[:, :, None, start:end, :keys]
    return torch.arange(start, end, device=device)[:, None] >= torch.arange(keys, device=device)


def _times(a_BKGTX: Tensor, b_BKXY: Tensor) -> Tensor:
    """Rows of all query heads of a kv head in one product: grouped-query attention without copying keys."""
    return (a_BKGTX.flatten(2, 3) @ b_BKXY).unflatten(2, a_BKGTX.shape[2:4])


def _transposed_times(a_BKGTX: Tensor, b_BKGTY: Tensor) -> Tensor:
    return a_BKGTX.flatten(2, 3).mT @ b_BKGTY.flatten(2, 3)


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


CHUNK_ROWS = 1024  # at an 8k vocabulary 32 MB of fp32 logits, about an L3 cache; larger chunks gave nothing


class Operations:
    """Plain PyTorch, on any device and in any dtype.

    Attributes:
        lean: keep less for backward passes, at a few per cent more work: what is kept of the layers is most of the
            memory where weights are frozen.
    """

    lean = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a copied model computes by the same operations, and a library of kernels cannot be copied."""
        return self

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + b in the dtype of x, whatever dtype the weights are kept in."""
        bias = None if bias is None else bias.to(x.dtype)
        if weight.dtype != x.dtype and x.requires_grad and not weight.requires_grad:
            return FrozenLinear.apply(x, weight, bias)
        return F.linear(x, weight.to(x.dtype), bias)

    def linears(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Sequence[Tensor]:
        """`linear` by each of several weights."""
        return [self.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight (arXiv:1910.07467), computed in fp32."""
        if x.requires_grad and not weight.requires_grad:
            return FrozenRMSNorm.apply(x, weight, eps)
        x32 = x.float()
        # Rounded before the weight is applied, as transformers does: equal logits also in bf16.
        return weight.to(x.dtype) * (x32 * reciprocal_rms(x32, eps)).to(x.dtype)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """(x - mean(x)) / deviation(x) * weight + bias (arXiv:1607.06450), computed in fp32."""
        return F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(x.dtype)

    def activate(self, activation: Activation, gate: Tensor, up: Tensor | None = None) -> Tensor:
        """activation(gate) * up (arXiv:2002.05202), or activation(gate) alone."""
        if up is None:
            return activated(gate, activation)
        if torch.compiler.is_compiling() or not gate.requires_grad:  # a compiler chooses itself what it keeps
            return activated(gate, activation) * up
        out: Tensor = Gated.apply(gate, up, activation)
        return out

    def feed_forward(
        self, x: Tensor, activation: Activation, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
    ) -> Tensor:
        """down(activation(gate(x)) * up(x)), or without up; weights and biases in the order gate, up, down."""
        inner = self.linears(x, weights[:-1], biases[:-1])
        return self.linear(self.activate(activation, *inner), weights[-1], biases[-1])

    def rotate(self, x_BTNH: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Turn each pair (x[i], x[i + H/2]) by the angle of its position: cos and sin, (B, T, 1, H).

        If those are narrower than the heads, features beyond their width are returned as they are.
        """
        cos, sin = (part.to(x_BTNH.dtype) for part in rope)
        if (width := cos.shape[-1]) < x_BTNH.shape[-1]:
            turned = self.rotate(x_BTNH[..., :width], rope)
            return torch.cat([turned, x_BTNH[..., width:]], dim=-1)
        first, second = x_BTNH.chunk(2, dim=-1)
        return x_BTNH * cos + torch.cat([-second, first], dim=-1) * sin

    def seen(self, positions_BT: Tensor, document_ids_BT: Tensor | None, window: int | None) -> Tensor | None:
        """Who may look at whom within rows of packed documents, as `attend` wants to be told; None: causality says it.

        A token sees the tokens of its own document before it and itself, with a window the last `window` of those.

        Returns:
            Here booleans, (B, 1, T, T).
        """
        length = positions_BT.shape[1]
        narrow = window is not None and window < length
        if document_ids_BT is None and not narrow:
            return None
        seen_TS = torch.ones(length, length, dtype=torch.bool, device=positions_BT.device).tril()
        if narrow and window is not None:
            seen_TS = seen_TS.triu(1 - window)
        if document_ids_BT is None:
            return seen_TS[None, None]
        same_BTS = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
        return (same_BTS & seen_TS)[:, None]

    def attend(
        self,
        q_BTNH: Tensor,
        k_BSKH: Tensor,
        v_BSKH: Tensor,
        seen: Tensor | None,
        scale: float,
        softcap: float | None = None,
    ) -> Tensor:
        """softmax(q k^T * scale) v over the keys that `seen` says; (B, T, N, H).

        Args:
            softcap: scores are softcap x tanh(scores / softcap) before softmax.
        """
        if softcap is not None:
            return softcapped_attention(q_BTNH, k_BSKH, v_BSKH, seen, scale, softcap)
        return attend(q_BTNH, k_BSKH, v_BSKH, seen, scale, lean=self.lean)

    def chunk_rows(self, vocab_size: int) -> int:
        """How many rows of logits the loss should hold at a time."""
        return CHUNK_ROWS

    def nll_and_residual(self, logits_RV: Tensor, labels_R: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Each row's negative log-likelihood, (R,) fp32, and its gradient by the logits: softmax - onehot.

        Rows labelled IGNORE_INDEX give 0 and a zero gradient. The logits may be overwritten.

        Args:
            z_loss: what the gradient is of has this times the square of the log of softmax's denominator beside it.
        """
        logits = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
        kept_R1 = (labels_R != IGNORE_INDEX).unsqueeze(1)
        targets_R1 = labels_R.clamp(min=0).unsqueeze(1)
        lse_R1 = logits.logsumexp(1, keepdim=True)
        nll_R1 = (lse_R1 - logits.gather(1, targets_R1)) * kept_R1
        # In place: of 512 rows of a vocabulary of 49k each copy has 100 MB.
        softmax_RV = logits.sub_(lse_R1).exp_()
        if z_loss:
            softmax_RV.mul_(1 + 2 * z_loss * lse_R1)
        residual_RV = softmax_RV.scatter_add_(1, targets_R1, -torch.ones_like(lse_R1)).mul_(kept_R1)
        return nll_R1.squeeze(1), residual_RV.to(logits_RV.dtype)

    def transposed_product(self, out_VD: Tensor, left_RV: Tensor, right_RD: Tensor, *, add: bool) -> None:
        """out = or += left^T right: what a weight's gradient is made of."""
        product = left_RV.t() @ right_RD
        out_VD.add_(product) if add else out_VD.copy_(product)


PLAIN = Operations()


class Accelerated(nn.Module):
    """A module whose arithmetic can be replaced: see `use_operations`."""

    operations = PLAIN


def use_operations(model: nn.Module, operations: Operations) -> None:
    """Let all of a model compute by `operations`."""
    for module in model.modules():
        if isinstance(module, Accelerated):
            module.operations = operations
