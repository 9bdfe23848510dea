"""The small pieces: linear layers that keep fp32 master weights, norms, the feed-forward layer.

Shape letters: B batch, T sequence, D dim, F ffn_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from groundup.model.config import ModelConfig
from groundup.model.families.base import Activation
from groundup.model.operations import Accelerated

if TYPE_CHECKING:
    from groundup.model.quantized import QuantizedWeight


class Linear(nn.Linear, Accelerated):
    """A linear layer that computes in the dtype of its input, whatever dtype its weights are kept in.

    Attributes:
        quantized: frozen weights in int8 or int4, in place of `weight`, which is then None; see
            `groundup.model.quantized`.
    """

    quantized: QuantizedWeight | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.register_module("quantized", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.quantized is not None:
            return self.quantized(x, self.bias)
        return self.operations.linear(x, self.weight, self.bias)

    def frozen_weight(self) -> nn.Parameter:
        """Return the weight as a parameter that is not trained, dequantized to fp32 if it is quantized."""
        dense = self.weight.detach() if self.quantized is None else self.quantized.dequantize()
        return nn.Parameter(dense, requires_grad=False)


def together(x: Tensor, *layers: Linear) -> Sequence[Tensor]:
    """What several layers make of the same x. They are computed as one operation, unless one has been changed (by an
    adapter, say)."""
    if _unchanged(layers):
        return layers[0].operations.linears(x, *_parameters(layers))
    return [layer(x) for layer in layers]


def feed_forward(x: Tensor, activation: Activation, *layers: Linear) -> Tensor:
    """down(activation(gate(x)) * up(x)) by the layers gate, up, down, of which up may be missing; like `together`."""
    *inner, down = layers
    if _unchanged(layers):
        return down.operations.feed_forward(x, activation, *_parameters(layers))
    return down(down.operations.activate(activation, *together(x, *inner)))


def _unchanged(layers: Sequence[Linear]) -> bool:
    return all(type(layer) is Linear and layer.quantized is None for layer in layers)


def _parameters(layers: Sequence[Linear]) -> tuple[list[Tensor], list[Tensor | None]]:
    return [layer.weight for layer in layers], [layer.bias for layer in layers]


class Embedding(nn.Embedding):
    """A table of vectors. On the meta device it is not filled: there is nothing to fill, and torch would import its
    compiler for it, which doubles the time that a model takes to load."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class RMSNorm(Accelerated):
    """x / rms(x) * weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.operations.rms_norm(x, self.weight, self.eps)


class LayerNorm(nn.LayerNorm, Accelerated):
    """LayerNorm, returned in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.operations.layer_norm(x, self.weight, self.bias, self.eps)


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
        self.activation = config.activation
        self.gate_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.up_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.down_proj = Linear(config.ffn_dim, config.dim, bias=config.ffn_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return feed_forward(x_BTD, self.activation, self.gate_proj, self.up_proj, self.down_proj)


class MLP(nn.Module):
    """down(act(up(x))), GPT-2's feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.down_proj = Linear(config.ffn_dim, config.dim, bias=config.ffn_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return feed_forward(x_BTD, self.activation, self.up_proj, self.down_proj)
