"""The optimizer of a model that is spread over ranks: shared out, so that no rank does what another does.

What is updated element by element (AdamW) is updated where it lies. A matrix that is orthogonalized (Muon) must be
whole: the directions of its rows are not those of some of them. So each matrix has one rank that owns it, gathers its
gradient, keeps its momentum, and sends the updated matrix to all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from groundup.distributed.collectives import is_sharded, rows_of, whole
from groundup.distributed.ranks import Ranks, Rows
from groundup.optim import Optimizer, OptimizerConfig, Orthogonalize, newton_schulz, parameter_groups


class Stored(Protocol):
    """Tensors of a checkpoint by name, of which a rank reads what it needs."""

    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, name: str, /) -> Tensor: ...
    def rows(self, name: str, first: int, count: int) -> Tensor:
        """Some rows of a tensor; a single number as it is."""
        ...


class ShardedOptimizer:
    """`Optimizer`, for a model that `spread` has spread. Same rules, same results; every rank calls each method."""

    def __init__(
        self, model: nn.Module, config: OptimizerConfig, ranks: Ranks, *, orthogonalize: Orthogonalize = newton_schulz
    ) -> None:
        self._ranks = ranks
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        matrices = parameter_groups(model)["matrix"] if config.matrices == "muon" else []
        self._owners = _shared_out(matrices, ranks.size)
        self._stand_ins: dict[nn.Parameter, nn.Parameter] = {}
        for parameter in self._parameters.values():
            owned = self._owners.get(parameter) == ranks.rank
            if parameter in self._owners:
                value = whole(parameter.detach())
            else:
                value = rows_of(parameter.detach(), ranks).tensor
            if owned or parameter not in self._owners:
                self._stand_ins[parameter] = nn.Parameter(value) if is_sharded(parameter) else parameter
        self._inner = Optimizer(model, config, self._stand_ins, orthogonalize=orthogonalize)

    def step(self, lr_factor: float, grad_factor: Tensor | None = None) -> None:
        """As `Optimizer.step`."""
        for parameter in self._parameters.values():
            assert parameter.grad is not None, "every trainable parameter takes part"
            if is_sharded(parameter):
                wanted = parameter in self._owners
                gradient = whole(parameter.grad) if wanted else rows_of(parameter.grad, self._ranks).tensor
                if parameter in self._stand_ins:
                    if not wanted:
                        # In torch 2.9, FSDP's first forward pass copies shards of unequal size: the tensor that
                        # was the parameter's shard before it would be updated in vain.
                        self._stand_ins[parameter].data = rows_of(parameter.detach(), self._ranks).tensor
                    self._stand_ins[parameter].grad = gradient
        self._inner.step(lr_factor, grad_factor)
        for parameter, owner in self._owners.items():
            self._send(parameter, owner)
        for parameter in self._parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor | Rows]:
        """What this rank keeps of the optimizer's state: rows of what is sharded, and the whole of what it owns."""
        kept: dict[str, Tensor | Rows] = {}
        for name, value in self._inner.state().items():
            parameter = self._parameters[name.rpartition(".")[0]]
            if parameter in self._owners:
                kept[name] = value
            elif value.ndim and is_sharded(parameter):
                place = rows_of(parameter, self._ranks)
                kept[name] = Rows(value, place.first, place.total)
            elif self._ranks.first:
                kept[name] = value
        return kept

    def load_state(self, tensors: Stored) -> None:
        """Take up what all ranks' `state` together gave, or that of `Optimizer`; after the model's weights.

        Raises:
            FormatError: a tensor belongs to no parameter of this model.
        """
        for parameter in self._owners:
            value = whole(parameter.detach())
            if parameter in self._stand_ins and is_sharded(parameter):
                self._stand_ins[parameter].data.copy_(value)
        mine: dict[str, Tensor] = {}
        for name in tensors:
            of = self._parameters.get(name.rpartition(".")[0])
            if of is not None and of not in self._stand_ins:
                continue
            if of is not None and is_sharded(of) and of not in self._owners:
                place = rows_of(of, self._ranks)
                mine[name] = tensors.rows(name, place.first, len(place.tensor))
            else:
                mine[name] = tensors[name]
        self._inner.load_state(mine)

    @torch.no_grad()
    def _send(self, parameter: nn.Parameter, owner: int) -> None:
        """Bring an updated matrix from its owner to all ranks, each of which keeps its rows."""
        if not is_sharded(parameter):
            dist.broadcast(parameter.data, owner)
            return
        place = rows_of(parameter, self._ranks)
        mine = self._stand_ins.get(parameter)
        value = mine.data if mine is not None else place.tensor.new_empty(parameter.shape)
        dist.broadcast(value, owner)
        place.tensor.copy_(value[place.first : place.first + len(place.tensor)])


def _shared_out(matrices: Sequence[nn.Parameter], ranks: int) -> dict[nn.Parameter, int]:
    """An owner for each matrix, so that all have about the same work: the largest first, each to who has least."""
    work = [0.0] * ranks
    owners = {}
    for matrix in sorted(matrices, key=lambda m: -m.numel()):
        owners[matrix] = work.index(min(work))
        work[owners[matrix]] += matrix.numel() * min(matrix.shape)
    return owners
