"""LoRA: low-rank adapters for a frozen model (Hu et al. 2021, arXiv:2106.09685).

Adapters are added to an existing model before the model is moved to a device, compiled or sharded.

Letters in tensor names: I is the number of inputs of a layer, O the number of outputs, and R the rank.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.config import nearest
from groundup.core.errors import ConfigError
from groundup.model.layers import Linear

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class LoRA:
    """LoRA settings.

    Attributes:
        rank: Rank of the adapters.
        alpha: The output of an adapter is multiplied by alpha / rank. With this scale, the best learning rate depends
            little on the rank.
        targets: Names, or suffixes of names, of the linear layers to adapt, such as "q_proj", "mlp.up_proj" or
            "layers.0.self_attn.q_proj". Default: all linear layers in the transformer blocks. To match full
            fine-tuning, adapting all layers is more important than a high rank (Dettmers et al. 2023, arXiv:2305.14314,
            section 4).
        rank_stabilized: Whether the scale is alpha / sqrt(rank), which is better for high ranks (arXiv:2312.03732).
        dropout: Dropout probability for the inputs of adapters.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = ()
    rank_stabilized: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"rank = {self.rank}, alpha = {self.alpha:g}, dropout = {self.dropout:g}",
                rule="rank and alpha must be positive, and dropout must be at least 0 and less than 1",
                fix="Set e.g. rank = 16, alpha = 32 and dropout = 0.",
            )

    @property
    def scale(self) -> float:
        """Factor by which the output of an adapter is multiplied."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class LoRALinear(Linear):
    """Linear layer with a LoRA adapter: x W^T + scale · (x A^T) B^T.

    The parameter W has the same name as in the base layer, so that the base model's state dict can still be loaded.

    Args:
        base: The layer to adapt. Its weights are shared, not copied.
        rank: Rank of the adapter.
        scale: Factor by which the adapter's output is multiplied.
        dropout: Dropout probability for the adapter's input.
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float = 0.0) -> None:
        with torch.device("meta"):  # allocate no memory, because the weights of the base are shared
            super().__init__(base.in_features, base.out_features, bias=base.bias is not None)
        self.weight, self.bias = base.weight, base.bias
        like = base.weight
        if isinstance(base, Linear):
            self.operations = base.operations
            if base.quantized is not None:
                self.quantized = base.quantized
                like = torch.empty(0, device=base.quantized.scales.device)
        self.scale = scale
        self.dropout = dropout
        self.lora_A = nn.Parameter(like.new_empty(rank, base.in_features))
        self.lora_B = nn.Parameter(like.new_zeros(base.out_features, rank))

    @classmethod
    def from_base(
        cls,
        base: nn.Linear,
        rank: int,
        scale: float,
        generator: torch.Generator | None = None,
        *,
        dropout: float = 0.0,
    ) -> LoRALinear:
        """Return a layer with an initialized adapter. A is random and B is zero, so that the output does not change.

        Args:
            base: The layer to adapt. Its weights are shared, not copied.
            rank: Rank of the adapter.
            scale: Factor by which the adapter's output is multiplied.
            generator: Random number generator for the initialization of A.
            dropout: Dropout probability for the adapter's input.
        """
        layer = cls(base, rank, scale, dropout)
        if not layer.lora_A.is_meta:
            bound = base.in_features**-0.5
            drawn = torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator)
            layer.lora_A.data.copy_(drawn)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b plus the adapter's output, in the dtype of x."""
        # Dropout is only applied if gradients are computed. Evaluations during training therefore do not use dropout.
        dropped = F.dropout(x, self.dropout) if self.dropout and self.training and torch.is_grad_enabled() else x
        low = self.scale * self.operations.linear(dropped, self.lora_A, None)
        return super().forward(x) + self.operations.linear(low, self.lora_B, None)

    def delta(self) -> Tensor:
        """Return the matrix that merging the adapter adds to the weight, of shape (O, I), in fp32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())

    def fuse(self) -> Linear:
        """Return a linear layer with the adapter merged into its weight.

        The sum is computed in fp32 and rounded to the dtype of the base weight. A quantized weight is dequantized, and
        the result is fp32.
        """
        layer = self.base_layer()
        dense = layer.frozen_weight()
        fused = (dense.float() + self.delta().detach()).to(dense.dtype)
        trained = self.weight is not None and self.weight.requires_grad
        layer.weight, layer.quantized = nn.Parameter(fused, requires_grad=trained), None
        return layer

    def base_layer(self) -> Linear:
        """Return the linear layer without the adapter."""
        with torch.device("meta"):
            layer = Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight, layer.bias, layer.operations = self.weight, self.bias, self.operations
        layer.quantized = self.quantized
        return layer


def add_lora(model: nn.Module, lora: LoRA, *, seed: int = 0) -> list[str]:
    """Freeze all parameters of a model and add LoRA adapters, in place.

    Args:
        model: The model.
        lora: LoRA settings.
        seed: Random seed for the initialization of the matrices A.

    Returns:
        The names of the adapted layers.

    Raises:
        ConfigError: A target does not match any linear layer in the transformer blocks.
    """
    names = match_targets(linear_layers(model), lora.targets)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        base = get_linear(model, name)
        replace_module(model, name, LoRALinear.from_base(base, lora.rank, lora.scale, generator, dropout=lora.dropout))
    return names


def fuse_lora(model: nn.Module) -> list[str]:
    """Merge all adapters into the weights, in place.

    Args:
        model: The model.

    Returns:
        The names of the adapted layers.
    """
    adapted = lora_layers(model)
    for name, layer in adapted.items():
        replace_module(model, name, layer.fuse())
    return list(adapted)


def remove_lora(model: nn.Module) -> list[str]:
    """Remove all adapters from a model, in place, so that the model is the base model again.

    Args:
        model: The model.

    Returns:
        The names of the adapted layers.
    """
    adapted = lora_layers(model)
    for name, layer in adapted.items():
        replace_module(model, name, layer.base_layer())
    return list(adapted)


def copy_sharing_weights(model: ModelT) -> ModelT:
    """Return a copy of a model that shares all tensors. Replacing modules of the copy does not change the model."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, dict(tensors))


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return layer name -> layer for all adapted layers of a model."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapter_parameters(model: nn.Module) -> int | None:
    """Return the number of trainable parameters of a model with adapters; None if the model does not have adapters."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return trained if lora_layers(model) else None


def linear_layers(model: nn.Module) -> list[str]:
    """Return the names of all linear layers in the transformer blocks.

    The output head is excluded, because the loss function uses its weight directly.
    """
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".layers." in name]


def match_targets(layers: Collection[str], targets: Collection[str]) -> list[str]:
    """Return the layers whose names end with one of the targets. If `targets` is empty, return all layers.

    Args:
        layers: Names of layers.
        targets: Suffixes of layer names.

    Raises:
        ConfigError: A target does not match any layer.
    """
    for target in targets:
        if not any(_ends_with(name, target) for name in layers):
            kinds = sorted({name.rpartition(".")[2] for name in layers})
            near = nearest(target, kinds)
            raise ConfigError(
                f"LoRA target {target!r}",
                rule=f"the model does not have such a layer; its linear layers are {', '.join(kinds)}",
                fix=f"Did you mean {near}?" if near else "Use these names, or omit targets to adapt all layers.",
            )
    return [name for name in layers if not targets or any(_ends_with(name, target) for target in targets)]


def _ends_with(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def get_linear(model: nn.Module, name: str) -> nn.Linear:
    """Return the linear layer that has the given name."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def replace_module(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the module that has the given name, in place."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
