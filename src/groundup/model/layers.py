"""The small pieces: linear layers that keep fp32 master weights, norms, rotary positions, the feed-forward layer.

Shape letters: B batch, T sequence, D dim, F ffn_dim, N heads, H head_dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.config import ModelConfig


class Linear(nn.Linear):
    """A linear layer that computes in the dtype of its input, whatever dtype its weights are kept in."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Embedding(nn.Embedding):
    """A table of vectors. On the meta device it is not filled: there is nothing to fill, and torch would import its
    compiler for it, which doubles the time that a model takes to load."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class RMSNorm(nn.Module):
    """x / rms(x) * weight (arXiv:1910.07467), computed in fp32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        # Rounded before the weight is applied, as transformers does: equal logits also in bf16.
        return self.weight.to(x.dtype) * normed.to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """LayerNorm in fp32, returned in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm of the family, over the residual stream."""
    if config.family == "gpt2":
        return LayerNorm(config.dim, eps=config.norm_eps)
    return RMSNorm(config.dim, config.norm_eps)


class Rotary(nn.Module):
    """Cosines and sines of every position, once for all layers (arXiv:2104.09864; halves, not interleaved pairs)."""

    cos_TH: Tensor
    sin_TH: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Named device: a model that is built on the meta device and given its weights later has real tables.
        exponents = torch.arange(0, config.head_dim, 2, device="cpu").float() / config.head_dim
        positions = torch.arange(config.context_length, device="cpu").float()
        angles = torch.outer(positions, config.rope_theta**-exponents)
        both_halves = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cos_TH", both_halves.cos(), persistent=False)
        self.register_buffer("sin_TH", both_halves.sin(), persistent=False)

    def forward(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Returns cos and sin as (B, T, 1, H), to be broadcast over heads."""
        return self.cos_TH[positions_BT].unsqueeze(2), self.sin_TH[positions_BT].unsqueeze(2)


def rotate(x_BTNH: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x[i], x[i + H/2]) by the angle of its position."""
    cos, sin = (part.to(x_BTNH.dtype) for part in rope)
    first, second = x_BTNH.chunk(2, dim=-1)
    return x_BTNH * cos + torch.cat([-second, first], dim=-1) * sin


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.dim, config.ffn_dim, bias=False)
        self.up_proj = Linear(config.dim, config.ffn_dim, bias=False)
        self.down_proj = Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class GeluMLP(nn.Module):
    """down(gelu(up(x))), GPT-2's feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = Linear(config.dim, config.ffn_dim)
        self.down_proj = Linear(config.ffn_dim, config.dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.up_proj(x_BTD), approximate="tanh"))


def make_mlp(config: ModelConfig) -> nn.Module:
    """The feed-forward layer of the family."""
    return GeluMLP(config) if config.family == "gpt2" else SwiGLU(config)
