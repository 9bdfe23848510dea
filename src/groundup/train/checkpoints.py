"""Saving a run as it goes and taking it up again, so that a killed run and an uninterrupted one end the same."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from groundup.checkpoint import TrainingState, load_newest_state, save_state
from groundup.errors import FormatError
from groundup.optim import Optimizer
from groundup.train.state import Progress


class Checkpoints:
    """The saved states of one run: weights, optimizer, random numbers, and how far it is.

    Batches need no state: a loader gives the batch of any index.

    Args:
        plan_digest: identity of everything that the run's result depends on; another plan's state is refused.
    """

    def __init__(self, directory: Path, model: nn.Module, optimizer: Optimizer, *, plan_digest: str) -> None:
        self._directory = directory
        self._model = model
        self._optimizer = optimizer
        self._plan_digest = plan_digest

    def restore(self) -> Progress:
        """Take up the newest whole state; at the very beginning there is none, and nothing changes.

        Raises:
            FormatError: the state belongs to another plan.
        """
        state = load_newest_state(self._directory)
        if state is None:
            return Progress()
        if state.meta["plan"] != self._plan_digest:
            raise FormatError(
                f"{self._directory}: a checkpoint of another plan",
                rule="a run goes on with the plan that it began with",
                fix="Put plan.json back as it was, or start in a new --out directory.",
            )
        self._model.load_state_dict(state.groups["model"])
        self._optimizer.load_state(state.groups["optimizer"])
        torch.set_rng_state(state.groups["random"]["cpu"])
        return Progress(step=state.step, tokens_seen=state.meta["tokens_seen"])

    def save(self, step: int, tokens_seen: int) -> None:
        """Write the state after `step` steps."""
        save_state(
            self._directory,
            TrainingState(
                step=step,
                groups={
                    "model": self._unshared(),
                    "optimizer": self._optimizer.state(),
                    "random": {"cpu": torch.get_rng_state()},
                },
                meta={"plan": self._plan_digest, "tokens_seen": tokens_seen},
            ),
        )

    def _unshared(self) -> dict[str, torch.Tensor]:
        # safetensors refuses tensors that share memory; a tied head is written twice and read back into one.
        return {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
