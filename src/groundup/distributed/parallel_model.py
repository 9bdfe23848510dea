"""Parallelize a model with DDP or FSDP2, wrapped from outside."""

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
from groundup.model import SequenceClassifier, Transformer
from groundup.optim import Optimizer, OptimizerConfig

ModelT = TypeVar("ModelT", bound=Transformer | SequenceClassifier)
Mode = Literal["single", "ddp", "fsdp"]

_MAX_REPLICATED_FRACTION = 0.5  # of a device's memory, for weights, gradients and optimizer state


def choose_mode(mode: Literal["ddp", "fsdp"] | None, ranks: Ranks, state_bytes: int, memory: int | None) -> Mode:
    """Return how to parallelize a model; default: DDP if each rank can easily hold all of it.

    Args:
        mode: DDP or FSDP, if the user has chosen one.
        ranks: Ranks of the run.
        state_bytes: Bytes of weights, gradients and optimizer state.
        memory: Memory of a rank's device in bytes; None: unknown.
    """
    if mode is not None:
        return mode if ranks.launched else "single"
    if ranks.size == 1:
        return "single"
    return "fsdp" if memory is not None and state_bytes > _MAX_REPLICATED_FRACTION * memory else "ddp"


def rank_memory(machine: Machine, ranks: Ranks, mode: Literal["ddp", "fsdp"] | None) -> int | None:
    """Return the bytes of memory for a model as if one rank trained it; None if unknown.

    On GPUs each rank has its own memory; on a CPU the ranks share it. FSDP shards the model over all ranks.

    Args:
        machine: Machine of this rank.
        ranks: Ranks of the run.
        mode: DDP or FSDP; None: choose later.
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
    """Place a model on the machine and parallelize it over all ranks.

    Args:
        model: Model to train.
        machine: Machine of this rank.
        ranks: Ranks of the run.
        mode: DDP or FSDP; None: DDP if each rank can easily hold the whole model.
        activation_checkpointing: Whether to use `checkpoint_activations`.

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
        model: The unwrapped model, with its names and methods. With FSDP its parameters are `DTensor`s that are sharded
            by rows, and every rank must take part in each computation.
        called: Module to call for the loss.
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
            # Layers are compiled separately, so there is no graph of the whole model to split at DDP's buckets.
            torch._dynamo.config.optimize_ddp = False
            self.forward_module = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    @property
    def probe_module(self) -> nn.Module:
        """Module for passes that may run out of memory; DDP's wrapper cannot continue after that."""
        return self.model if self._mode == "ddp" else self.forward_module

    def optimizer(self, config: OptimizerConfig) -> Optimizer | ShardedOptimizer:
        """Return the optimizer of this model."""
        if self._mode == "single":
            return Optimizer(self.model, config, orthogonalize=orthogonalize_of(self.model))
        return ShardedOptimizer(self.model, config, self._ranks, orthogonalize=orthogonalize_of(self.model))

    @property
    def optimizer_bytes(self) -> int:
        """Estimated bytes of the optimizer state on this rank, with AdamW's two numbers per parameter."""
        shards = self._ranks.size if self._mode == "fsdp" else 1
        return sum(8 * p.numel() for p in self.model.parameters() if p.requires_grad) // shards

    def is_finite(self) -> bool:
        """Return whether all weights are finite, on every rank."""
        held = (rows_of(parameter, self._ranks).tensor for parameter in self.model.parameters())
        return bool(self._ranks.min(int(all(rows.isfinite().all() for rows in held))))

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Allow calls of submodules in this block; see `unwrapped`."""
        with unwrapped(self.model):
            yield

    def gathered(self) -> ModelT:
        """Return the model with all weights. Every rank must call this; only the first may use the result."""
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
    """Return a copy without the tensors of the state dict: parameters and quantized weights."""
    meta: dict[int, torch.Tensor] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    stored = model.state_dict().keys()
    meta |= {id(b): torch.empty_like(b, device="meta") for name, b in model.named_buffers() if name in stored}
    return copy.deepcopy(model, meta)


@contextmanager
def unwrapped(model: nn.Module, *, gather_layers: bool = False) -> Iterator[Any]:
    """Yield the unwrapped model of DDP or FSDP, so that its submodules and methods work, e.g. to generate.

    With FSDP every rank enters the block. Parameters outside of the layers are gathered for the whole block, and each
    layer is gathered when it is called. Every rank must therefore do the same number of forward passes.

    Args:
        model: Model as called for the loss.
        gather_layers: Whether to gather all layers for the whole block. This needs the memory of all weights, but no
            communication per layer and token, and each rank may do any number of forward passes.

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
            # FSDP allocates its gathered tensors once. If this happens in inference mode, training fails.
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
    """Recompute the activations of a layer in its backward pass instead of storing them (arXiv:1604.06174).

    It costs a third more compute for a fraction of the memory. Call it before the model is placed.

    Args:
        model: Model to change in place.
    """
    for layer in model.model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
