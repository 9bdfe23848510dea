"""When a contender's training begins and ends, and how long its steps take. Every driver is timed by this one."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from benchmarks.pretrain.shapes import product_parameters


class Clock:
    """Ticks after each optimizer step, and says when it is enough.

    For speed: `warmup_steps`, then steps for `seconds`, `least_steps` at least. For quality: until `deadline`.

    Attributes:
        horizon: optimizer steps that the run will have in all, as foreseen now: what a learning-rate schedule needs.
        parameters, product_parameters: of the model that was built.
        tokens: that have been trained on, where the driver says it.
    """

    def __init__(
        self,
        *,
        started: float,
        device: str,
        seconds: float = 0.0,
        warmup_steps: int = 0,
        least_steps: int = 1,
        deadline: float | None = None,
    ) -> None:
        """Start.

        Args:
            started: when the process was started, as `time.time()`.
            deadline: when training must end, as `time.time()`; None measures speed.
        """
        self.horizon = 10_000
        self.parameters = self.product_parameters = self.tokens = 0
        self._started = started
        self._device = device
        self._seconds = seconds
        self._warmup_steps = warmup_steps
        self._least_steps = least_steps
        self._deadline = deadline
        self._ends: list[float] = []  # the first is the beginning of step 1
        self._losses: list[float] = []

    def begin(self, model: nn.Module) -> None:
        """The model is built, and step 1 begins now."""
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.product_parameters = product_parameters(model)
        self._ends.append(self._now())

    def tick(self, loss: float) -> bool:
        """A step is done; whether there is to be another."""
        self._ends.append(self._now())
        self._losses.append(loss)
        if self._deadline is not None:
            return self._before_deadline()
        timed = self.steps - self._warmup_steps
        return timed < self._least_steps or self._ends[-1] - self._ends[self._warmup_steps] < self._seconds

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self._losses)

    @property
    def to_first_step(self) -> float:
        """Seconds from the start of the process to the end of step 1."""
        return self._ends[1] - self._started

    def record(self) -> dict[str, Any]:
        """What is reported of the run."""
        durations = [end - begin for begin, end in zip(self._ends, self._ends[1:], strict=False)]
        timed = durations[self._warmup_steps :]
        return {
            "steps": len(timed),
            "seconds": sum(timed),
            "step_seconds": durations,
            "to_first_step_seconds": self.to_first_step,
            "losses": [None if loss != loss else loss for loss in (self._losses[0], self._losses[-1])],
            "parameters": self.parameters,
            "product_parameters": self.product_parameters,
            "tokens": self.tokens,
        }

    def _before_deadline(self) -> bool:
        assert self._deadline is not None
        left = self._deadline - self._ends[-1]
        if self.steps < 2:  # the first step compiles: it says nothing about the others
            return left > 0
        mean = (self._ends[-1] - self._ends[1]) / (self.steps - 1)
        self.horizon = self.steps + max(0, int(left / mean))
        return left > mean / 2  # to end as near to the deadline as whole steps allow

    def _now(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.time()
