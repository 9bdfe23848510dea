"""Saving a run as it goes and taking it up again, so that a killed run and an uninterrupted one end the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from groundup.core.errors import FormatError
from groundup.distributed import ShardedOptimizer, is_sharded, rows_of
from groundup.distributed.ranks import Ranks, Rows
from groundup.hub import StoredState, TrainingState, load_newest_state, save_state
from groundup.optim import Optimizer
from groundup.train.fit import Progress

_ALONE = Ranks()


class Checkpoints:
    """The saved states of one run: the weights that are trained, optimizer, random numbers, and how far it is.

    Batches need no state: a loader gives the batch of any index. Every rank calls each method; each saves what it
    holds, and a state that some ranks saved can be restored by any other number of them.

    Args:
        plan_digest: identity of everything that the run's result depends on; another plan's state is refused.
        model: not wrapped; its parameters may be sharded.
        say: Is told of a damaged state, and which one is read instead.
    """

    def __init__(
        self,
        directory: Path,
        model: nn.Module,
        optimizer: Optimizer | ShardedOptimizer,
        *,
        plan_digest: str,
        ranks: Ranks = _ALONE,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._model = model
        self._optimizer = optimizer
        self._plan_digest = plan_digest
        self._ranks = ranks
        self._say = say

    def restore(self, *, at_most: int | None = None) -> Progress:
        """Take up the newest intact state; at the very beginning there is none, and nothing changes.

        Args:
            at_most: The last step that counts.

        Raises:
            FormatError: the state belongs to another plan, or all states are damaged.
        """
        state = load_newest_state(self._directory, ranks=self._ranks, at_most=at_most, say=self._say)
        if state is None:
            return Progress()
        if state.meta["plan"] != self._plan_digest:
            raise FormatError(
                f"{self._directory}: a checkpoint of another plan",
                rule="a run goes on with the plan that it began with",
                fix="Put plan.json back as it was, or start in a new --out directory.",
            )
        self._load_weights(state)
        self._optimizer.load_state(state.groups["optimizer"])
        torch.set_rng_state(state.groups["random"]["cpu"])
        device = self._device()
        if device.type == "cuda" and (mine := f"cuda-{self._ranks.rank}") in state.groups["random"]:
            torch.cuda.set_rng_state(state.groups["random"][mine], device)
        return Progress.from_json({**state.meta, "step": state.step})

    def save(self, progress: Progress, *, keep: int = 2) -> None:
        """Write the state after `progress.step` steps; the newest `keep` stay."""
        random = {"cpu": torch.get_rng_state()} if self._ranks.first else {}
        device = self._device()
        if device.type == "cuda":  # each rank's draws are its own: they leave out parts of other texts
            random[f"cuda-{self._ranks.rank}"] = torch.cuda.get_rng_state(device)
        save_state(
            self._directory,
            TrainingState(
                step=progress.step,
                groups={
                    "model": self._weights(),
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

    def _weights(self) -> dict[str, Tensor | Rows]:
        held: dict[str, Tensor | Rows] = {}
        for name, tensor in self._trained().items():
            if is_sharded(tensor):
                held[name] = rows_of(tensor, self._ranks)
            elif self._ranks.first:
                held[name] = tensor
        return held

    def _trained(self) -> dict[str, Tensor]:
        """The parameters that are trained, without second names: frozen and quantized weights are those of the base.

        safetensors refuses tensors that share memory, and a tied head is 10 % of a state of GPT-2's 124M.
        """
        named = self._model.named_parameters(remove_duplicate=False)
        trained = {name for name, parameter in named if parameter.requires_grad} - self._second_names()
        return {name: tensor for name, tensor in self._model.state_dict().items() if name in trained}

    def _second_names(self) -> set[str]:
        """Names of parameters that have another one before, as a tied head has that of the embeddings."""
        first = {name for name, _ in self._model.named_parameters()}
        return {name for name, _ in self._model.named_parameters(remove_duplicate=False)} - first

    @torch.no_grad()
    def _load_weights(self, state: StoredState) -> None:
        stored, tensors = state.groups["model"], self._trained()
        # Earlier releases wrote a tied tensor under each of its names.
        if odd := (stored.keys() ^ tensors.keys()) - self._second_names():
            raise FormatError(
                f"{self._directory}: weights {', '.join(sorted(odd)[:3])}",
                rule="a checkpoint has the weights of this model, no more and no fewer",
                fix="This checkpoint is of another model; start in a new --out directory.",
            )
        for name, tensor in tensors.items():
            place = rows_of(tensor, self._ranks)
            place.tensor.copy_(stored.rows(name, place.first, len(place.tensor)) if tensor.ndim else stored[name])
