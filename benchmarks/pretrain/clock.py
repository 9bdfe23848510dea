"""The clock that all drivers use to measure the duration of steps and to decide when training ends."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from benchmarks.pretrain.shapes import matmul_parameters


class Clock:
    """Records the time of each optimizer step, and decides when training ends.

    If speed is measured, training ends after `warmup_steps` and at least `min_steps` more steps, when these have taken
    `seconds`. If quality is measured, training ends at `deadline`.

    Attributes:
        horizon: Estimated total number of steps, from which the driver computes the learning rate.
        parameters: Number of parameters of the model.
        matmul_parameters: Number of parameters in linear layers.
        tokens: Number of tokens seen, or 0 if the driver does not report it.
    """

    def __init__(
        self,
        *,
        started: float,
        device: str,
        seconds: float = 0.0,
        warmup_steps: int = 0,
        min_steps: int = 1,
        deadline: float | None = None,
    ) -> None:
        """Create a clock.

        Args:
            started: Value of `time.time()` when the process started.
            device: "cpu" or "cuda".
            seconds: Minimum total duration of the measured steps.
            warmup_steps: Number of steps before the measurement.
            min_steps: Minimum number of measured steps.
            deadline: Value of `time.time()` at which training must end. If None, the clock measures speed.
        """
        self.horizon = 10_000
        self.parameters = self.matmul_parameters = self.tokens = 0
        self._started = started
        self._device = device
        self._seconds = seconds
        self._warmup_steps = warmup_steps
        self._min_steps = min_steps
        self._deadline = deadline
        self._ends: list[float] = []  # the first item is the beginning of step 1
        self._losses: list[float] = []

    def begin(self, model: nn.Module) -> None:
        """Record the model and the beginning of step 1."""
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.matmul_parameters = matmul_parameters(model)
        self._ends.append(self._now())

    def tick(self, loss: float) -> bool:
        """Record the end of a step, and return whether to continue."""
        self._ends.append(self._now())
        self._losses.append(loss)
        if self._deadline is not None:
            return self._before_deadline()
        timed = self.steps - self._warmup_steps
        return timed < self._min_steps or self._ends[-1] - self._ends[self._warmup_steps] < self._seconds

    @property
    def steps(self) -> int:
        """Number of completed steps."""
        return len(self._losses)

    @property
    def to_first_step(self) -> float:
        """Seconds from the start of the process to the end of step 1."""
        return self._ends[1] - self._started

    def record(self) -> dict[str, Any]:
        """Return the measurements as JSON values."""
        durations = [end - begin for begin, end in zip(self._ends, self._ends[1:], strict=False)]
        timed = durations[self._warmup_steps :]
        return {
            "steps": len(timed),
            "seconds": sum(timed),
            "step_seconds": durations,
            "to_first_step_seconds": self.to_first_step,
            "losses": [None if loss != loss else loss for loss in (self._losses[0], self._losses[-1])],
            "parameters": self.parameters,
            "matmul_parameters": self.matmul_parameters,
            "tokens": self.tokens,
        }

    def _before_deadline(self) -> bool:
        assert self._deadline is not None
        remaining = self._deadline - self._ends[-1]
        if self.steps < 2:  # The first step includes compilation, so it does not count in the mean.
            return remaining > 0
        mean = (self._ends[-1] - self._ends[1]) / (self.steps - 1)
        self.horizon = self.steps + max(0, int(remaining / mean))
        return remaining > mean / 2  # Training ends as close to the deadline as possible.

    def _now(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.time()
