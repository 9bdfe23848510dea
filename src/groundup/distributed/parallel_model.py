"""One model on many ranks: torch's DDP or FSDP2, wrapped around a model that knows neither."""

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

from groundup.distributed.collectives import rows_of, whole
from groundup.distributed.ranks import Ranks
from groundup.distributed.sharded_optimizer import ShardedOptimizer
from groundup.kernels import Machine, memory_bytes, place
from groundup.kernels.native_operations import orthogonalize_of
from groundup.model import SequenceClassifier, Transformer
from groundup.optim import Optimizer, OptimizerConfig

ModelT = TypeVar("ModelT", bound=Transformer | SequenceClassifier)
Mode = Literal["single", "ddp", "fsdp"]

_REPLICATED_SHARE = 0.5  # of a device's memory: DDP keeps weights, gradients and optimizer state whole on each rank


def choose_mode(wanted: Literal["ddp", "fsdp"] | None, ranks: Ranks, state_bytes: int, memory: int | None) -> Mode:
    """How a model is spread where nobody says it: DDP, as long as each rank can easily hold all of it.

    Args:
        state_bytes: of weights, gradients and optimizer state.
        memory: of a rank's device; None: unknown.
    """
    if wanted is not None:
        return wanted if ranks.grouped else "single"
    if ranks.size == 1:
        return "single"
    return "fsdp" if memory is not None and state_bytes > _REPLICATED_SHARE * memory else "ddp"


def rank_memory(machine: Machine, ranks: Ranks, mode: Literal["ddp", "fsdp"] | None) -> int | None:
    """Return the bytes of memory for a model as if one rank trained it; None if unknown.

    Each rank has a GPU's memory of its own; ranks on a CPU share the machine's. FSDP shards the model over all ranks.
    """
    memory = memory_bytes(machine.device)
    if memory is None:
        return None
    whole = memory * (ranks.size if machine.device == "cuda" else 1)
    return whole if mode == "fsdp" else whole // ranks.size


def parallelize(
    model: ModelT,
    machine: Machine,
    ranks: Ranks,
    *,
    mode: Literal["ddp", "fsdp"] | None = None,
    activation_checkpointing: bool = False,
) -> ParallelModel[ModelT]:
    """Place a model on the machine and on all of its ranks.

    Args:
        mode: DDP or FSDP; None: DDP where each rank easily holds the whole model.
        activation_checkpointing: see `checkpoint_activations`.
    """
    if activation_checkpointing:
        checkpoint_activations(model)
    place(model, machine)
    state_bytes = 16 * sum(parameter.numel() for parameter in model.parameters())
    return ParallelModel(model, choose_mode(mode, ranks, state_bytes, rank_memory(machine, ranks, mode)), ranks)


class ParallelModel(Generic[ModelT]):
    """A model, which has been placed, spread over all ranks.

    Attributes:
        model: it itself, with its names and methods. With "fsdp" its parameters are `DTensor`s, of which each rank
            holds some rows, and every rank must join in whatever is computed.
        called: what is called for the loss.
    """

    def __init__(self, model: ModelT, mode: Mode, ranks: Ranks) -> None:
        self.model = model
        self.called: nn.Module = model
        self._mode = mode
        self._ranks = ranks
        self._hollow: ModelT | None = None
        if mode == "fsdp":
            self._hollow = _hollow(model)
            for layer in model.model.layers:
                fully_shard(layer)
            fully_shard(model)
        elif mode == "ddp":
            # Layers are compiled one by one: there is no graph of the whole model that buckets could split.
            torch._dynamo.config.optimize_ddp = False
            self.called = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    @property
    def probed(self) -> nn.Module:
        """What is called for passes that may run out of memory halfway, after which DDP's wrapper would not go on."""
        return self.model if self._mode == "ddp" else self.called

    def optimizer(self, config: OptimizerConfig) -> Optimizer | ShardedOptimizer:
        """The optimizer of this model."""
        if self._mode == "single":
            return Optimizer(self.model, config, orthogonalize=orthogonalize_of(self.model))
        return ShardedOptimizer(self.model, config, self._ranks, orthogonalize=orthogonalize_of(self.model))

    @property
    def optimizer_bytes(self) -> int:
        """Roughly what this rank will keep of the optimizer's state: AdamW's, two numbers a parameter."""
        shards = self._ranks.size if self._mode == "fsdp" else 1
        return sum(8 * p.numel() for p in self.model.parameters() if p.requires_grad) // shards

    def is_finite(self) -> bool:
        """Whether all weights are finite numbers, on every rank."""
        held = (rows_of(parameter, self._ranks).tensor for parameter in self.model.parameters())
        return bool(self._ranks.min(int(all(rows.isfinite().all() for rows in held))))

    @contextmanager
    def readable(self) -> Iterator[None]:
        """In this block parts of the model can be called on their own: see `unwrapped`."""
        with unwrapped(self.model):
            yield

    def gathered(self) -> ModelT:
        """The model with all of its weights; every rank joins in, and what comes back is of use on the first alone."""
        if self._hollow is None:
            return self.model
        weights = {}
        for name, tensor in self.model.state_dict().items():
            value = whole(tensor)
            if self._ranks.first:
                weights[name] = value.detach().cpu()
        if self._ranks.first:
            self._hollow.load_state_dict(weights, assign=True)
        return self._hollow


def _hollow(model: ModelT) -> ModelT:
    """Return a copy without the tensors of the state dict: parameters, and quantized weights."""
    meta: dict[int, torch.Tensor] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    stored = model.state_dict().keys()
    meta |= {id(b): torch.empty_like(b, device="meta") for name, b in model.named_buffers() if name in stored}
    return copy.deepcopy(model, meta)


@contextmanager
def unwrapped(model: nn.Module, *, gather_layers: bool = False) -> Iterator[Any]:
    """Yield the model inside of DDP's wrapper or FSDP's, so that its parts and methods work, e.g. to generate.

    With FSDP every rank enters the block; the parameters outside of the layers are gathered for all of it, and a layer
    gathers its own when it is called. So every rank does the same number of forward passes in the block.

    Args:
        model: as it is called for the loss.
        gather_layers: gather all layers for the whole block. It takes the memory of all weights, spares a gathering per
            layer and token, and each rank may do any number of forward passes.

    Yields:
        The `Transformer` or `SequenceClassifier` itself.
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
            # FSDP makes the tensors that it gathers into once. If that happens in inference mode, training fails.
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
    """Keep only what enters a layer, and compute the rest again for its gradient (Chen et al. 2016, arXiv:1604.06174):
    a third more work for a fraction of the memory. Before the model is placed."""
    for layer in model.model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
