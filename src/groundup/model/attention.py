"""Grouped-query attention: project, normalize, rotate, attend, project out.

Shape letters: B batch, T queries, S keys, D dim, N query heads, K kv heads, H head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.attend import attend
from groundup.model.cache import KVCache
from groundup.model.config import ModelConfig
from groundup.model.layers import Linear, make_norm
from groundup.model.rope import rotate


class Attention(nn.Module):
    """Causal self-attention of one layer."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        q_dim, kv_dim = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = Linear(config.dim, q_dim, bias=config.qkv_bias)
        self.k_proj = Linear(config.dim, kv_dim, bias=config.qkv_bias)
        self.v_proj = Linear(config.dim, kv_dim, bias=config.qkv_bias)
        self.o_proj = Linear(q_dim, config.dim, bias=config.output_bias)
        self.q_norm = make_norm(config, config.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = make_norm(config, config.head_dim) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        mask_B1TS: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor:
        heads = (*x_BTD.shape[:2], -1, self.config.head_dim)
        q_BTNH, k_BTKH, v_BTKH = (proj(x_BTD).view(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        if rope is not None:
            q_BTNH, k_BTKH = rotate(q_BTNH, rope), rotate(k_BTKH, rope)
        if cache is not None:
            k_BTKH, v_BTKH = cache.extend(self.layer, k_BTKH, v_BTKH)
        return self.o_proj(attend(q_BTNH, k_BTKH, v_BTKH, mask_B1TS, self.config.attention_scale).flatten(2))


def attention_mask(
    positions_BT: Tensor, document_ids_BT: Tensor | None, cache: KVCache | None, window: int | None = None
) -> Tensor | None:
    """Who may look at whom, as booleans (B, 1, T, S); None where plain causality says it all.

    Within a packed row a token sees its own document only. With a cache a token sees all earlier positions. With a
    window it sees the last `window` of those, itself included.
    """
    length = positions_BT.shape[1]
    if cache is not None and cache.length:
        keys_S = torch.arange(cache.length + length, device=positions_BT.device)
        seen_BTS = keys_S <= positions_BT[:, :, None]
        if window is not None and window < len(keys_S):
            seen_BTS &= keys_S > positions_BT[:, :, None] - window
        return seen_BTS[:, None]
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
