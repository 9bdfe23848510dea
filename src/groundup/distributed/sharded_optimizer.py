"""Optimizer of a parallelized model, which distributes the updates over the ranks.

AdamW is elementwise, so each rank updates the rows that it stores. Muon orthogonalizes full matrices, so each matrix is
assigned to one rank. This rank gathers the gradient of the matrix, stores its momentum, and broadcasts the updated
matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from groundup.distributed.collectives import full_tensor, is_sharded, rows_of
from groundup.distributed.ranks import Ranks, Rows
from groundup.optim import Optimizer, OptimizerConfig, Orthogonalize, newton_schulz, parameter_groups


class StoredTensors(Protocol):
    """Mapping from names to the tensors of a checkpoint. A rank can read only the rows that it needs."""

    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, name: str, /) -> Tensor: ...
    def rows(self, name: str, first: int, count: int) -> Tensor:
        """Return `count` rows of a tensor, beginning with row `first`. A scalar is returned unchanged."""
        ...


class ShardedOptimizer:
    """Optimizer for a parallelized model, which computes the same updates as `Optimizer`.

    All ranks must call each method.

    Args:
        model: Parallelized model.
        config: Learning rates and hyperparameters.
        ranks: Ranks of the run.
        orthogonalize: Function that orthogonalizes matrices for Muon.
    """

    def __init__(
        self, model: nn.Module, config: OptimizerConfig, ranks: Ranks, *, orthogonalize: Orthogonalize = newton_schulz
    ) -> None:
        self._ranks = ranks
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        matrices = parameter_groups(model)["matrix"] if config.matrices == "muon" else []
        self._owners = _assign_owners(matrices, ranks.size)
        self._replacements: dict[nn.Parameter, nn.Parameter] = {}
        for parameter in self._parameters.values():
            owned = self._owners.get(parameter) == ranks.rank
            if parameter in self._owners:
                value = full_tensor(parameter.detach())
            else:
                value = rows_of(parameter.detach(), ranks).tensor
            if owned or parameter not in self._owners:
                self._replacements[parameter] = nn.Parameter(value) if is_sharded(parameter) else parameter
        self._inner = Optimizer(model, config, self._replacements, orthogonalize=orthogonalize)

    def step(self, lr_factor: float, grad_factor: Tensor | None = None, *, fraction: float = 1.0) -> None:
        """Update all parameters from their gradients; see `Optimizer.step`."""
        for parameter in self._parameters.values():
            assert parameter.grad is not None, "every trainable parameter must have a gradient"
            if is_sharded(parameter):
                owned_by_one = parameter in self._owners
                gradient = full_tensor(parameter.grad) if owned_by_one else rows_of(parameter.grad, self._ranks).tensor
                if parameter in self._replacements:
                    if not owned_by_one:
                        # In torch 2.9, FSDP copies shards of unequal size in its first forward pass. The old shard of
                        # the parameter is then no longer used, so the replacement must refer to the new shard.
                        self._replacements[parameter].data = rows_of(parameter.detach(), self._ranks).tensor
                    self._replacements[parameter].grad = gradient
        self._inner.step(lr_factor, grad_factor, fraction=fraction)
        for parameter, owner in self._owners.items():
            self._broadcast(parameter, owner)
        for parameter in self._parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor | Rows]:
        """Return the part of the optimizer state that this rank stores.

        This part contains the state of this rank's rows of sharded parameters, and of the matrices assigned to this
        rank.
        """
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

    def load_state(self, tensors: StoredTensors) -> None:
        """Load an optimizer state. The weights of the model must already be loaded.

        Args:
            tensors: Optimizer state of a checkpoint, which a `ShardedOptimizer` or an `Optimizer` wrote.

        Raises:
            FormatError: A tensor does not belong to any parameter of this model.
        """
        for parameter in self._owners:
            value = full_tensor(parameter.detach())
            if parameter in self._replacements and is_sharded(parameter):
                self._replacements[parameter].data.copy_(value)
        mine: dict[str, Tensor] = {}
        for name in tensors:
            of = self._parameters.get(name.rpartition(".")[0])
            if of is not None and of not in self._replacements:
                continue
            if of is not None and is_sharded(of) and of not in self._owners:
                place = rows_of(of, self._ranks)
                mine[name] = tensors.rows(name, place.first, len(place.tensor))
            else:
                mine[name] = tensors[name]
        self._inner.load_state(mine)

    @torch.no_grad()
    def _broadcast(self, parameter: nn.Parameter, owner: int) -> None:
        """Broadcast an updated matrix from the rank `owner`. Each rank copies the rows that it stores."""
        if not is_sharded(parameter):
            dist.broadcast(parameter.data, owner)
            return
        place = rows_of(parameter, self._ranks)
        mine = self._replacements.get(parameter)
        value = mine.data if mine is not None else place.tensor.new_empty(parameter.shape)
        dist.broadcast(value, owner)
        place.tensor.copy_(value[place.first : place.first + len(place.tensor)])


def _assign_owners(matrices: Sequence[nn.Parameter], ranks: int) -> dict[nn.Parameter, int]:
    """Assign each matrix to a rank so that the compute is balanced.

    The matrices are assigned in the order of their size, the largest first. Each is assigned to the rank with the least
    compute so far.
    """
    work = [0.0] * ranks
    owners = {}
    for matrix in sorted(matrices, key=lambda m: -m.numel()):
        owners[matrix] = work.index(min(work))
        work[owners[matrix]] += matrix.numel() * min(matrix.shape)
    return owners
