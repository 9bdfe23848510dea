"""Layers of the transformer: linear layers with fp32 master weights, embeddings, norms and MLPs.

Letters in tensor names: B is the batch size, T the sequence length, D the hidden size, and F the FFN size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundup.model.config import ModelConfig
from groundup.model.families.base import Activation
from groundup.model.operations import Accelerated
from groundup.model.quantized import QuantizedWeight


class Linear(nn.Linear, Accelerated):
    """Linear layer that computes in the dtype of its input. Its weights may have another dtype.

    Attributes:
        quantized: Frozen int8 or int4 weights, see `groundup.model.quantized`. If `quantized` is set, `weight` is None.
    """

    quantized: QuantizedWeight | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.register_module("quantized", None)

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b in the dtype of x."""
        if self.quantized is not None:
            return self.quantized(x, self.bias)
        return self.operations.linear(x, self.weight, self.bias)

    def dense_weight(self) -> Tensor:
        """Return the weight. A quantized weight is dequantized to fp32."""
        return self.weight if self.quantized is None else self.quantized.dequantize()

    def frozen_weight(self) -> nn.Parameter:
        """Return the weight as a frozen parameter. A quantized weight is dequantized to fp32."""
        return nn.Parameter(self.dense_weight().detach(), requires_grad=False)


def apply_linears(x: Tensor, *layers: Linear) -> Sequence[Tensor]:
    """Apply several linear layers to the same input.

    The layers are computed in one fused operation unless one of them has an adapter or is quantized.
    """
    if _fusible(layers):
        return layers[0].operations.linears(x, *_parameters(layers))
    return [layer(x) for layer in layers]


def feed_forward(x: Tensor, activation: Activation, *layers: Linear) -> Tensor:
    """Compute an MLP: down_proj(activation(gate_proj(x)) * up_proj(x)).

    The MLP is computed in one fused operation if possible; see `apply_linears`.

    Args:
        x: The input, of shape (..., D).
        activation: The activation function.
        layers: The layers gate_proj, up_proj and down_proj. An MLP that is not gated does not have gate_proj.
    """
    *inner, down = layers
    if _fusible(layers):
        return down.operations.feed_forward(x, activation, *_parameters(layers))
    return down(down.operations.activate(activation, *apply_linears(x, *inner)))


def _fusible(layers: Sequence[Linear]) -> bool:
    return all(type(layer) is Linear and layer.quantized is None for layer in layers)


def _parameters(layers: Sequence[Linear]) -> tuple[list[Tensor], list[Tensor | None]]:
    return [layer.weight for layer in layers], [layer.bias for layer in layers]


class Embedding(nn.Embedding):
    """Embedding that may be quantized, and is not initialized on the meta device.

    Initializing a meta tensor would import torch's compiler, which doubles the time to load a model.

    Attributes:
        quantized: Frozen quantized weights, like `Linear.quantized`. If `quantized` is set, `weight` is None.
    """

    quantized: QuantizedWeight | None

    def __init__(self, num_embeddings: int, embedding_dim: int, _weight: Tensor | None = None) -> None:
        super().__init__(num_embeddings, embedding_dim, _weight=_weight)
        self.register_module("quantized", None)

    def forward(self, input: Tensor) -> Tensor:
        """Return the embeddings of token ids."""
        return super().forward(input) if self.quantized is None else self.quantized.rows(input)

    def dense_weight(self) -> Tensor:
        """Return the weight. A quantized weight is dequantized to fp32."""
        return self.weight if self.quantized is None else self.quantized.dequantize()

    def reset_parameters(self) -> None:
        """Initialize the weight. On the meta device, do nothing."""
        if not self.weight.is_meta:
            super().reset_parameters()


class RMSNorm(Accelerated):
    """RMSNorm (arXiv:1910.07467): x / rms(x) * weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension of x."""
        return self.operations.rms_norm(x, self.weight, self.eps)

    def add(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x + branch and its norm; see `Operations.add_rms_norm`."""
        return self.operations.add_rms_norm(x, branch, self.weight, self.eps)


class LayerNorm(nn.LayerNorm, Accelerated):
    """LayerNorm (arXiv:1607.06450) whose output has the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension of x."""
        return self.operations.layer_norm(x, self.weight, self.bias, self.eps)

    def add(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x + branch and its norm; see `Operations.add_layer_norm`."""
        return self.operations.add_layer_norm(x, branch, self.weight, self.bias, self.eps)


class RMSNormPlusOne(nn.Module):
    """Gemma's RMSNorm: x / rms(x) * (1 + weight), computed in fp32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension of x."""
        x32 = x.float()
        normed = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (normed * (1.0 + self.weight.float())).to(x.dtype)


def add_and_normalize(norm: nn.Module, x: Tensor, branch: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Add the output of a branch to the residual stream, and normalize the sum.

    Args:
        norm: The norm, or an identity.
        x: The residual stream, of shape (..., D).
        branch: The output of attention or of the MLP, of shape (..., D), or None.

    Returns:
        The residual stream after the addition and its norm. The residual stream must be used from this result; see
        `Operations.add_rms_norm`.
    """
    if isinstance(norm, RMSNorm | LayerNorm):
        return norm.add(x, branch)
    x = x if branch is None else x + branch
    return x, norm(x)


def make_norm(config: ModelConfig, dim: int | None = None) -> nn.Module:
    """Create a norm of the type that the model's family uses.

    Args:
        config: The model's config.
        dim: Number of features. Default: `config.dim`.
    """
    kinds = {"layer": LayerNorm, "rms": RMSNorm, "rms_plus_one": RMSNormPlusOne}
    return kinds[config.norm](dim or config.dim, config.norm_eps)


def make_mlp(config: ModelConfig) -> nn.Module:
    """Create an MLP of the type that the model's family uses."""
    return GatedMLP(config) if config.gated else MLP(config)


class GatedMLP(nn.Module):
    """Gated MLP, such as SwiGLU (arXiv:2002.05202): down_proj(act(gate_proj(x)) * up_proj(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.gate_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.up_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.down_proj = Linear(config.ffn_dim, config.dim, bias=config.ffn_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the output of the MLP, of shape (B, T, D)."""
        return feed_forward(x_BTD, self.activation, self.gate_proj, self.up_proj, self.down_proj)


class MLP(nn.Module):
    """MLP that is not gated, as in GPT-2: down_proj(act(up_proj(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up_proj = Linear(config.dim, config.ffn_dim, bias=config.ffn_bias)
        self.down_proj = Linear(config.ffn_dim, config.dim, bias=config.ffn_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the output of the MLP, of shape (B, T, D)."""
        return feed_forward(x_BTD, self.activation, self.up_proj, self.down_proj)
