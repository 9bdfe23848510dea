"""Grouped-query attention and rotary position embeddings (RoPE).

Letters in tensor names: B is the batch size, T the number of queries, S the number of keys, D the hidden size, N the
number of query heads, K the number of KV heads, H the head_dim, E the number of heads x head_dim, and P = H / 2 the
number of feature pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from groundup.model.cache import BatchCache, Cache
from groundup.model.config import ModelConfig, RopeScaling
from groundup.model.layers import Linear, RMSNorm, apply_linears, make_norm
from groundup.model.operations import Accelerated


class Rotary(nn.Module):
    """Module that computes the cosines and sines of RoPE for all layers that have the same frequencies.

    RoPE rotates the feature pairs (i, i + H / 2), not pairs of adjacent features. Cosines and sines are computed in
    each forward pass, because a table for 131,072 positions would be larger than many small models.

    Args:
        head_dim: Number of rotated features per head.
        theta: Base of the frequencies.
        scaling: RoPE scaling. None means no scaling.
    """

    frequencies_P: Tensor

    def __init__(self, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> None:
        super().__init__()
        # The device is explicit, because a model that is built on the meta device also needs the frequencies. A power
        # with a negative exponent would be rounded differently from the division, which changes angles at position
        # 100,000.
        frequencies_P = 1.0 / theta ** (torch.arange(0, head_dim, 2, device="cpu").float() / head_dim)
        self.magnitude = 1.0
        if scaling is not None:
            frequencies_P = _SCALINGS[scaling.kind](frequencies_P, head_dim, theta, scaling)
            if scaling.kind == "yarn":
                self.magnitude = scaling.attention_factor or _yarn_magnitude(scaling.factor)
        self.register_buffer("frequencies_P", frequencies_P, persistent=False)

    def forward(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines for the given positions, both of shape (B, T, 1, H)."""
        angles_BT1P = positions_BT[:, :, None, None].float() * self.frequencies_P
        cos, sin = angles_BT1P.cos() * self.magnitude, angles_BT1P.sin() * self.magnitude
        return torch.cat([cos, cos], dim=-1), torch.cat([sin, sin], dim=-1)


def _linear(frequencies_P: Tensor, head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    return frequencies_P / scaling.factor


def _llama3(frequencies_P: Tensor, head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Scale each frequency as Llama 3.1 does, depending on its number of rotations within the original context."""
    assert scaling.original_context_length is not None
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    rotations_P = scaling.original_context_length * frequencies_P / (2 * math.pi)
    kept_P = ((rotations_P - low) / (high - low)).clamp(0, 1)
    return (1 - kept_P) * frequencies_P / scaling.factor + kept_P * frequencies_P


def _yarn(frequencies_P: Tensor, head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Scale frequencies as YaRN does (arXiv:2309.00071, section 3.2), with a linear ramp over the feature pairs."""
    context = scaling.original_context_length
    assert context is not None

    def pair_with_rotations(rotations: float) -> float:
        return head_dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_with_rotations(scaling.beta_fast), pair_with_rotations(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        last += 0.001  # avoid a division by zero
    pairs_P = torch.arange(head_dim // 2, device="cpu").float()
    divided_P = ((pairs_P - first) / (last - first)).clamp(0, 1)
    return divided_P * frequencies_P / scaling.factor + (1 - divided_P) * frequencies_P


def _yarn_magnitude(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


_SCALINGS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn}


class Attention(Accelerated):
    """Causal self-attention of one layer."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer = layer
        self.scale, self.qk_norm = config.attention_scale, config.qk_norm
        self.window = config.sliding_window if config.slides(layer) else None
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
        attn_mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        """Return the output of attention, of shape (B, T, D)."""
        q_BTNH, k_BTKH, v_BTKH = self.project(x_BTD, rope)
        if isinstance(cache, BatchCache):
            return self.o_proj(self._attend_rows(q_BTNH, k_BTKH, v_BTKH, cache).flatten(2))
        if cache is not None:
            k_BTKH, v_BTKH = cache.extend(self.layer, k_BTKH, v_BTKH)
        out_BTNH = self.operations.attend(q_BTNH, k_BTKH, v_BTKH, attn_mask, self.scale, self.config.attention_softcap)
        return self.o_proj(out_BTNH.flatten(2))

    def _attend_rows(self, q_BTNH: Tensor, k_BTKH: Tensor, v_BTKH: Tensor, cache: BatchCache) -> Tensor:
        """Compute attention for one new token of each sequence, of shape (B, 1, N, H). Padding rows get zeros.

        Sequences are computed separately, so that the result does not depend on the lengths of other sequences.
        """
        out_BTNH = torch.zeros_like(q_BTNH)
        for row, each in enumerate(cache.rows):
            here = slice(row, row + 1)
            keys, values = each.extend(self.layer, k_BTKH[here], v_BTKH[here])
            if self.window is not None:
                keys, values = keys[:, -self.window :], values[:, -self.window :]
            query = q_BTNH[here].clone()  # matmul kernels may round differently at another memory alignment
            out_BTNH[here] = self.operations.attend(
                query, keys, values, None, self.scale, self.config.attention_softcap
            )
        return out_BTNH

    def project(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values from normalized inputs. QK norm and RoPE are already applied."""
        q_BTE, k_BTE, v_BTE = apply_linears(x_BTD, self.q_proj, self.k_proj, self.v_proj)
        q_BTNH, k_BTKH = self._positioned(q_BTE, self.q_norm, rope), self._positioned(k_BTE, self.k_norm, rope)
        return q_BTNH, k_BTKH, self._heads(v_BTE)

    def _positioned(self, x_BTE: Tensor, norm: nn.Module, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """Apply QK norm and RoPE to queries or keys. The result has the shape (B, T, N, H)."""
        x_BTNH = self._heads(x_BTE)
        if isinstance(norm, RMSNorm) and rope is not None:
            return self.operations.rms_norm_rotate(x_BTNH, norm.weight, norm.eps, rope)
        x_BTNH = self._heads(norm(x_BTE)) if self.qk_norm == "projection" else norm(x_BTNH)
        return x_BTNH if rope is None else self.operations.rotate(x_BTNH, rope)

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return x_BTE.view(*x_BTE.shape[:2], -1, self.config.head_dim)


def _qk_norm(config: ModelConfig, projection_dim: int) -> nn.Module:
    if config.qk_norm is None:
        return nn.Identity()
    return make_norm(config, config.head_dim if config.qk_norm == "head" else projection_dim)


def cached_attention_mask(positions_BT: Tensor, n_keys: int, window: int | None) -> Tensor:
    """Return the boolean attention mask of shape (B, 1, T, S) for new tokens that attend to a KV cache.

    Args:
        positions_BT: Positions of the new tokens.
        n_keys: Number of keys, including cached and new keys.
        window: Size of the sliding window. None means no sliding window.
    """
    keys_S = torch.arange(n_keys, device=positions_BT.device)
    mask_BTS = keys_S <= positions_BT[:, :, None]
    if window is not None and window < n_keys:
        mask_BTS &= keys_S > positions_BT[:, :, None] - window
    return mask_BTS[:, None]
