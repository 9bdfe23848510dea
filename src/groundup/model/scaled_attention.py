"""Attention in PyTorch: fused, with a softcap, and explicit with a custom backward pass.

Letters in tensor names: see `groundup.model.operations`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model.config import MAX_EXPLICIT_LENGTH

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
