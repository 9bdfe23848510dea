"""Softmax attention over given queries, keys and values: two ways, one result.

Shape letters: B batch, T queries, S keys, N query heads, K kv heads, G query heads of one kv head, H head_dim.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model.config import LONGEST_EXPLICIT

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
