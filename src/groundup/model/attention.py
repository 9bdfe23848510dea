"""Grouped-query attention: project, normalize, rotate, attend, project out.

Shape letters: B batch, T queries, S keys, D dim, N query heads, K kv heads, H head_dim, E heads x head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.model.cache import Cache
from groundup.model.config import ModelConfig
from groundup.model.layers import Linear, make_norm, together
from groundup.model.operations import Accelerated


class Attention(Accelerated):
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
        self.q_norm = _qk_norm(config, q_dim)
        self.k_norm = _qk_norm(config, kv_dim)

    def forward(
        self,
        x_BTD: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        seen: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        q_BTNH, k_BTKH, v_BTKH = self.projected(x_BTD, rope)
        if cache is not None:
            k_BTKH, v_BTKH = cache.extend(self.layer, k_BTKH, v_BTKH)
        mixed_BTNH = self.operations.attend(
            q_BTNH, k_BTKH, v_BTKH, seen, self.config.attention_scale, self.config.attention_softcap
        )
        return self.o_proj(mixed_BTNH.flatten(2))

    def projected(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of normalized inputs, as they meet each other."""
        heads = (*x_BTD.shape[:2], -1, self.config.head_dim)
        q_BTE, k_BTE, v_BTE = together(x_BTD, self.q_proj, self.k_proj, self.v_proj)
        if self.config.qk_norm == "projection":
            q_BTE, k_BTE = self.q_norm(q_BTE), self.k_norm(k_BTE)
        q_BTNH, k_BTKH, v_BTKH = (y_BTE.view(heads) for y_BTE in (q_BTE, k_BTE, v_BTE))
        if self.config.qk_norm == "head":
            q_BTNH, k_BTKH = self.q_norm(q_BTNH), self.k_norm(k_BTKH)
        if rope is not None:
            q_BTNH, k_BTKH = (self.operations.rotate(x_BTNH, rope) for x_BTNH in (q_BTNH, k_BTKH))
        return q_BTNH, k_BTKH, v_BTKH


def _qk_norm(config: ModelConfig, projection_dim: int) -> nn.Module:
    if config.qk_norm is None:
        return nn.Identity()
    return make_norm(config, config.head_dim if config.qk_norm == "head" else projection_dim)


def seen_with_cache(positions_BT: Tensor, n_keys: int, window: int | None) -> Tensor:
    """Who may look at whom where keys of earlier tokens are kept, as booleans (B, 1, T, S).

    A token sees all earlier positions and itself, with a window the last `window` of those.
    """
    keys_S = torch.arange(n_keys, device=positions_BT.device)
    seen_BTS = keys_S <= positions_BT[:, :, None]
    if window is not None and window < n_keys:
        seen_BTS &= keys_S > positions_BT[:, :, None] - window
    return seen_BTS[:, None]
