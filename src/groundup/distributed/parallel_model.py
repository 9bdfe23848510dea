"""Parallelization of a model over several ranks with DDP or FSDP2. The code of the model is not changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from groundup.distributed.collectives import full_tensor, rows_of
from groundup.distributed.ranks import Ranks
from groundup.distributed.sharded_optimizer import ShardedOptimizer
from groundup.kernels import Machine, memory_bytes, prepare_model
from groundup.kernels.native_operations import orthogonalize_of
from groundup.kernels.native_optimizer import adamw_of
from groundup.model import SequenceClassifier, Transformer
from groundup.optim import Optimizer, OptimizerConfig

ModelT = TypeVar("ModelT", bound=Transformer | SequenceClassifier)
Mode = Literal["single", "ddp", "fsdp"]

# DDP is used if weights, gradients and optimizer state take at most this fraction of a device's memory.
_MAX_REPLICATED_FRACTION = 0.5


def choose_mode(mode: Literal["ddp", "fsdp"] | None, ranks: Ranks, state_bytes: int, memory: int | None) -> Mode:
    """Return the mode in which a model is parallelized.

    If the user has not chosen a mode, DDP is used if the model fits easily into the memory of each rank. Otherwise,
    FSDP is used.

    Args:
        mode: Mode that the user has chosen; None if the user has not chosen a mode.
        ranks: Ranks of the run.
        state_bytes: Size of weights, gradients and optimizer state in bytes.
        memory: Memory of each rank in bytes; None if it is unknown.
    """
    if mode is not None:
        return mode if ranks.launched else "single"
    if ranks.size == 1:
        return "single"
    return "fsdp" if memory is not None and state_bytes > _MAX_REPLICATED_FRACTION * memory else "ddp"


def rank_memory(machine: Machine, ranks: Ranks, mode: Literal["ddp", "fsdp"] | None) -> int | None:
    """Return the memory that is available for one copy of the model, in bytes; None if the memory size is unknown.

    Each rank has its own GPU memory, but ranks on a CPU share the memory of the machine. With FSDP, all ranks together
    store one copy of the model.

    Args:
        machine: Machine of this rank.
        ranks: Ranks of the run.
        mode: DDP or FSDP; None if the mode has not been chosen.
    """
    memory = memory_bytes(machine.device)
    if memory is None:
        return None
    total = memory * (ranks.size if machine.device == "cuda" else 1)
    return total if mode == "fsdp" else total // ranks.size


def parallelize(
    model: ModelT,
    machine: Machine,
    ranks: Ranks,
    *,
    mode: Literal["ddp", "fsdp"] | None = None,
    activation_checkpointing: bool = False,
) -> ParallelModel[ModelT]:
    """Move a model to the device of this rank, and parallelize it over all ranks.

    Args:
        model: Model to train.
        machine: Machine of this rank.
        ranks: Ranks of the run.
        mode: DDP or FSDP. If None, `choose_mode` chooses the mode.
        activation_checkpointing: Whether to recompute activations; see `checkpoint_activations`.

    Returns:
        The parallel model.
    """
    if activation_checkpointing:
        checkpoint_activations(model)
    prepare_model(model, machine)
    state_bytes = 16 * sum(parameter.numel() for parameter in model.parameters())
    return ParallelModel(model, choose_mode(mode, ranks, state_bytes, rank_memory(machine, ranks, mode)), ranks)


class ParallelModel(Generic[ModelT]):
    """A model that is parallelized over all ranks.

    Attributes:
        model: The unwrapped model. With FSDP, its parameters are `DTensor` objects that are sharded along the first
            dimension, and all ranks must take part in each computation.
        forward_module: Module that must be called to compute the loss. With DDP, it is the wrapper of the model.
    """

    def __init__(self, model: ModelT, mode: Mode, ranks: Ranks) -> None:
        self.model = model
        self.forward_module: nn.Module = model
        self._mode = mode
        self._ranks = ranks
        self._empty_copy: ModelT | None = None
        if mode == "fsdp":
            self._empty_copy = _empty_copy(model)
            for layer in model.model.layers:
                fully_shard(layer)
            fully_shard(model)
        elif mode == "ddp":
            # torch.compile would split the graph of the model at DDP's buckets. This is not required, because each
            # layer is compiled separately.
            torch._dynamo.config.optimize_ddp = False
            self.forward_module = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    @property
    def probe_module(self) -> nn.Module:
        """Module to call for passes that may run out of memory.

        With DDP, this is the unwrapped model, because the wrapper cannot be used again after an out-of-memory error.
        """
        return self.model if self._mode == "ddp" else self.forward_module

    def optimizer(self, config: OptimizerConfig) -> Optimizer | ShardedOptimizer:
        """Create an optimizer for this model."""
        if self._mode == "single":
            return Optimizer(self.model, config, orthogonalize=orthogonalize_of(self.model), adamw=adamw_of(self.model))
        return ShardedOptimizer(self.model, config, self._ranks, orthogonalize=orthogonalize_of(self.model))

    @property
    def optimizer_bytes(self) -> int:
        """Estimated size of the optimizer state on this rank in bytes, assuming the two fp32 values of AdamW."""
        shards = self._ranks.size if self._mode == "fsdp" else 1
        return sum(8 * p.numel() for p in self.model.parameters() if p.requires_grad) // shards

    def is_finite(self) -> bool:
        """Return whether all weights on all ranks are finite."""
        held = (rows_of(parameter, self._ranks).tensor for parameter in self.model.parameters())
        return bool(self._ranks.min(int(all(rows.isfinite().all() for rows in held))))

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Context manager in which submodules of the model can be called; see `unwrapped`."""
        with unwrapped(self.model):
            yield

    def gathered(self) -> ModelT:
        """Return the model with all weights gathered.

        All ranks must call this method, but only rank 0 may use the result.
        """
        if self._empty_copy is None:
            return self.model
        weights = {}
        for name, tensor in self.model.state_dict().items():
            value = full_tensor(tensor)
            if self._ranks.first:
                weights[name] = value.detach().cpu()
        if self._ranks.first:
            self._empty_copy.load_state_dict(weights, assign=True)
        return self._empty_copy


def _empty_copy(model: ModelT) -> ModelT:
    """Return a copy of a model whose parameters and quantized weights are on the meta device."""
    meta: dict[int, torch.Tensor] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    stored = model.state_dict().keys()
    meta |= {id(b): torch.empty_like(b, device="meta") for name, b in model.named_buffers() if name in stored}
    return copy.deepcopy(model, meta)


@contextmanager
def unwrapped(model: nn.Module, *, gather_layers: bool = False) -> Iterator[Any]:
    """Context manager that yields the unwrapped model. Its submodules and methods can be called, e.g. to generate.

    With FSDP, all ranks must enter the context. Parameters outside of the layers stay gathered until the context ends.
    Each layer is gathered when it is called, so all ranks must run the same number of forward passes.

    Args:
        model: Model that is wrapped with DDP or FSDP, or an unwrapped model.
        gather_layers: Whether to gather all layers until the context ends. If true, each rank stores all weights.
            Forward passes then do not communicate, and each rank may run any number of them.

    Yields:
        The `Transformer` or `SequenceClassifier`.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    if not isinstance(model, FSDPModule):
        yield model
        return
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    state = model._get_fsdp_state()
    if state._is_root is None:  # before the first forward pass
        with torch.no_grad():
            state._lazy_init()
            # FSDP allocates the gathered tensors only once. If they were allocated in inference mode, training would
            # fail, so they are allocated here.
            for module in modules:
                module.unshard()
                module.reshard()
    kept = modules if gather_layers else [model]
    for module in kept:
        module.unshard()
        if module is not model:
            module.set_reshard_after_forward(False, recurse=False)
    try:
        yield model
    finally:
        for module in kept:
            module.reshard()
            if module is not model:
                module.set_reshard_after_forward(True, recurse=False)


def checkpoint_activations(model: Transformer | SequenceClassifier) -> None:
    """Enable activation checkpointing: recompute activations in the backward pass (arXiv:1604.06174).

    With activation checkpointing, training takes a third more compute, but activations take only a fraction of the
    memory. Call this function before the model is moved to a device.

    Args:
        model: Model that is modified in place.
    """
    for layer in model.model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
