"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): a frozen model, and a small product beside each matrix.

A transform of a built model, applied before it is placed, compiled or sharded; the model itself knows nothing of it.
Shape letters: I in_features, O out_features, R rank; `...` whatever stands in front.
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
    """What to adapt, and how much.

    Attributes:
        rank: of the products that are learned.
        alpha: their scale is alpha / rank, so that the learning rate need not follow the rank.
        targets: names of linear layers ("q_proj", "mlp.up_proj", "layers.0.self_attn.q_proj"); without any, every
            linear layer inside the blocks: that, and not the rank, is what full tuning's quality takes (Dettmers et
            al. 2023, arXiv:2305.14314, section 4).
        rank_stabilized: scale by alpha / sqrt(rank) instead (arXiv:2312.03732), for high ranks.
        dropout: share of an adapter's inputs that are left out in training.
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
                rule="an adapter has a positive rank, a positive, finite alpha, and a dropout from 0 to below 1",
                fix="Give, for example, rank = 16, alpha = 32 and dropout = 0.",
            )

    @property
    def scale(self) -> float:
        """What the learned product is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class LoRALinear(Linear):
    """x W^T + scale · (x A^T) B^T, with W of the base under its own name, so that a base's state dict still fits."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float = 0.0) -> None:
        with torch.device("meta"):  # the base brings its weights, shared and not copied
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
        """A layer that computes what `base` does until it is trained: A is random, B is zero."""
        layer = cls(base, rank, scale, dropout)
        if not layer.lora_A.is_meta:
            bound = base.in_features**-0.5
            drawn = torch.empty(layer.lora_A.shape).uniform_(-bound, bound, generator=generator)
            layer.lora_A.data.copy_(drawn)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        # Without gradients nothing is trained: what is looked at on the way is the model as it will be used.
        dropped = F.dropout(x, self.dropout) if self.dropout and self.training and torch.is_grad_enabled() else x
        low = self.scale * self.operations.linear(dropped, self.lora_A, None)
        return super().forward(x) + self.operations.linear(low, self.lora_B, None)

    def delta(self) -> Tensor:
        """What the adapter adds to the matrix, (O, I) in fp32."""
        return self.scale * (self.lora_B.float() @ self.lora_A.float())

    def fuse(self) -> Linear:
        """One plain layer that computes the same: the sum is made in fp32 and kept in the base's dtype. A quantized
        base becomes a dense one in fp32."""
        layer = self.without()
        dense = layer.frozen_weight()
        fused = (dense.float() + self.delta().detach()).to(dense.dtype)
        trained = self.weight is not None and self.weight.requires_grad
        layer.weight, layer.quantized = nn.Parameter(fused, requires_grad=trained), None
        return layer

    def without(self) -> Linear:
        """The base's own layer."""
        with torch.device("meta"):
            layer = Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight, layer.bias, layer.operations = self.weight, self.bias, self.operations
        layer.quantized = self.quantized
        return layer


def add_lora(model: nn.Module, lora: LoRA, *, seed: int = 0) -> list[str]:
    """Adapt a model in place: its own parameters are frozen, and only the adapters' are trained.

    Args:
        seed: of the factors A; the same seed gives the same ones.

    Returns:
        The names of the layers that were adapted.

    Raises:
        ConfigError: a target that no linear layer inside the blocks has; the message lists those there are.
    """
    names = targeted(linear_layers(model), lora.targets)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        base = linear_at(model, name)
        put(model, name, LoRALinear.from_base(base, lora.rank, lora.scale, generator, dropout=lora.dropout))
    return names


def fuse_lora(model: nn.Module) -> list[str]:
    """Merge every adapter of a model into its matrices, in place; returns the names of those layers."""
    adapted = adapters_of(model)
    for name, layer in adapted.items():
        put(model, name, layer.fuse())
    return list(adapted)


def remove_lora(model: nn.Module) -> list[str]:
    """Take every adapter off a model, in place, which is then its base again; returns the names of those layers."""
    adapted = adapters_of(model)
    for name, layer in adapted.items():
        put(model, name, layer.without())
    return list(adapted)


def sharing_weights(model: ModelT) -> ModelT:
    """The same model over the same tensors: what is put into the one's layers does not change the other."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, dict(tensors))


def adapters_of(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers of a model by their names, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def adapter_parameters(model: nn.Module) -> int | None:
    """How many parameters are trained, where adapters are; None: no adapter there."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return trained if adapters_of(model) else None


def linear_layers(model: nn.Module) -> list[str]:
    """The linear layers that can be adapted: those inside the blocks. (The loss reads the head's matrix itself.)"""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".layers." in name]


def targeted(layers: Collection[str], targets: Collection[str]) -> list[str]:
    """The layers that the targets name by how their own names end; without targets, all.

    Raises:
        ConfigError: a target names none.
    """
    for target in targets:
        if not any(_ends_with(name, target) for name in layers):
            kinds = sorted({name.rpartition(".")[2] for name in layers})
            near = nearest(target, kinds)
            raise ConfigError(
                f"LoRA target {target!r}",
                rule=f"a target names linear layers inside the blocks; here they are {', '.join(kinds)}",
                fix=f"Did you mean {near}?" if near else "Name some of these, or leave targets out to adapt all.",
            )
    return [name for name in layers if not targets or any(_ends_with(name, target) for target in targets)]


def _ends_with(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def linear_at(model: nn.Module, name: str) -> nn.Linear:
    """The linear layer of that name."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def put(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put another layer in the place of the one of that name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
