"""Save and restore checkpoints. A killed and resumed run ends with the same weights as an uninterrupted run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from groundup.core.errors import FormatError
from groundup.distributed import ShardedOptimizer, is_sharded, rows_of
from groundup.distributed.ranks import Ranks, Rows
from groundup.hub import StoredTensors, TrainingState, load_newest_state, save_state
from groundup.optim import Optimizer
from groundup.train.callbacks.weight_average import WeightAverage
from groundup.train.fit import Progress

_SINGLE_RANK = Ranks()


class Checkpoints:
    """Checkpoints of a run: trained weights, their average, optimizer state, random states, and progress.

    The data loader has no state to save, because it returns the batch at any index. Every rank must call each method of
    this class. A checkpoint contains the weights of all ranks, and can be restored with a different number of ranks.

    Args:
        directory: Directory of the checkpoints.
        model: Model without the DDP or FSDP wrapper, whose parameters may be sharded.
        optimizer: Optimizer of the run.
        plan_digest: Fingerprint of the plan. Checkpoints that were saved with another plan are rejected.
        average: Average of the weights, or None if the run does not average its weights.
        ranks: Ranks of the run.
        warn: Prints a warning if a checkpoint is damaged and an older checkpoint is restored instead.
    """

    def __init__(
        self,
        directory: Path,
        model: nn.Module,
        optimizer: Optimizer | ShardedOptimizer,
        *,
        plan_digest: str,
        average: WeightAverage | None = None,
        ranks: Ranks = _SINGLE_RANK,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._model = model
        self._optimizer = optimizer
        self._plan_digest = plan_digest
        self._average = average
        self._ranks = ranks
        self._warn = warn

    def restore(self, *, at_most: int | None = None) -> Progress:
        """Restore the newest intact checkpoint. If there are no checkpoints, change nothing.

        Args:
            at_most: Maximum step of the checkpoint to restore, or None for no maximum.

        Returns:
            The progress that was saved with the checkpoint, or the progress of a new run if there are no checkpoints.

        Raises:
            FormatError: The checkpoint belongs to another plan or has no average, or all checkpoints are damaged.
        """
        state = load_newest_state(self._directory, ranks=self._ranks, at_most=at_most, warn=self._warn)
        if state is None:
            return Progress()
        if state.meta["plan"] != self._plan_digest:
            raise FormatError(
                f"{self._directory}: the checkpoint belongs to another plan",
                rule="a run resumes with the plan that it started with",
                fix="Restore plan.json, or start in a new --out directory.",
            )
        self._load(state.groups["model"], self._trained())
        if self._average:
            if "average" not in state.groups:
                raise FormatError(
                    f"{self._directory}: the checkpoint does not contain an average of the weights",
                    fix="Resume without ema_fraction, or start in a new --out directory.",
                )
            self._load(state.groups["average"], self._average.tensors)
        self._optimizer.load_state(state.groups["optimizer"])
        torch.set_rng_state(state.groups["random"]["cpu"])
        device = self._device()
        if device.type == "cuda" and (mine := f"cuda-{self._ranks.rank}") in state.groups["random"]:
            torch.cuda.set_rng_state(state.groups["random"][mine], device)
        return Progress.from_json({**state.meta, "step": state.step})

    def save(self, progress: Progress, *, keep: int = 2) -> None:
        """Write a checkpoint of the current step, and delete all checkpoints except for the newest `keep`."""
        random = {"cpu": torch.get_rng_state()} if self._ranks.first else {}
        device = self._device()
        if device.type == "cuda":  # saved for each rank, because dropout masks differ between ranks
            random[f"cuda-{self._ranks.rank}"] = torch.cuda.get_rng_state(device)
        save_state(
            self._directory,
            TrainingState(
                step=progress.step,
                groups={
                    "model": self._rows(self._trained()),
                    **({"average": self._rows(self._average.tensors)} if self._average else {}),
                    "optimizer": self._optimizer.state(),
                    "random": random,
                },
                meta={"plan": self._plan_digest, **asdict(progress)},
            ),
            keep=keep,
            ranks=self._ranks,
        )

    def _device(self) -> torch.device:
        return next(self._model.parameters()).device

    def _rows(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor | Rows]:
        """Return the part of the tensors that this rank saves."""
        held: dict[str, Tensor | Rows] = {}
        for name, tensor in tensors.items():
            if is_sharded(tensor):
                held[name] = rows_of(tensor, self._ranks)
            elif self._ranks.first:
                held[name] = tensor
        return held

    def _trained(self) -> dict[str, Tensor]:
        """Return the trained parameters. Each tied parameter is returned only once.

        Frozen and quantized weights are not saved, because they are in the base model. Tied parameters are saved once
        because safetensors rejects tensors that share memory, and to save space: the tied head would be 10 % of a
        checkpoint of GPT-2 (124M parameters).
        """
        trained = {name for name, parameter in self._model.named_parameters() if parameter.requires_grad}
        return {name: tensor for name, tensor in self._model.state_dict().items() if name in trained}

    @torch.no_grad()
    def _load(self, stored: StoredTensors, tensors: Mapping[str, Tensor]) -> None:
        if unknown := stored.keys() ^ tensors.keys():
            raise FormatError(
                f"{self._directory}: the weights {', '.join(sorted(unknown)[:3])} do not match this model",
                fix="This checkpoint belongs to another model; start in a new --out directory.",
            )
        for name, tensor in tensors.items():
            place = rows_of(tensor, self._ranks)
            place.tensor.copy_(stored.rows(name, place.first, len(place.tensor)) if tensor.ndim else stored[name])
