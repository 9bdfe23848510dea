"""The small pieces: linear layers that keep fp32 master weights, norms, the feed-forward layer.

Shape letters: B batch, T sequence, D dim, F ffn_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.config import ModelConfig

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu_tanh": partial(F.gelu, approximate="tanh")}


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


class RMSNormPlusOne(nn.Module):
    """x / rms(x) * (1 + weight), rounded at the end: Gemma's. A weight of 0 is the norm alone."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (normed * (1.0 + self.weight.float())).to(x.dtype)


def make_norm(config: ModelConfig, dim: int | None = None) -> nn.Module:
    """The norm of the family, over the residual stream by default."""
    kinds = {"layer": LayerNorm, "rms": RMSNorm, "rms_plus_one": RMSNormPlusOne}
    return kinds[config.norm](dim or config.dim, config.norm_eps)


def make_mlp(config: ModelConfig) -> nn.Module:
    """The feed-forward layer of the family."""
    return GatedMLP(config) if config.gated else MLP(config)


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)) (arXiv:2002.05202): SwiGLU, or Gemma's GeGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.gate_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.up_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.down_proj = Linear(config.ffn_dim, config.dim, bias=config.ffn_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class MLP(nn.Module):
    """down(act(up(x))), GPT-2's feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.up_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.down_proj = Linear(config.ffn_dim, config.dim, bias=config.ffn_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.up_proj(x_BTD)))
