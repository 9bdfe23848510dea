"""The learning rate over a run: warm up, stay, decay (WSD, arXiv:2404.06395)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class WarmupStableDecay:
    """Factor on every learning rate.

    Attributes:
        total_steps: optimizer steps of the run.
        warmup_steps: linear from 0; the first step already moves.
        decay_steps: linear to 0 over the last steps; the last step still moves.
    """

    total_steps: int
    warmup_steps: int
    decay_steps: int

    def over(self, total_steps: int) -> Self:
        """The same for a run of another length: it warms up as long, and decays over the same share."""
        if total_steps == self.total_steps:
            return self
        decay_steps = math.ceil(self.decay_steps * total_steps / self.total_steps)
        return replace(self, total_steps=total_steps, decay_steps=decay_steps)

    def __call__(self, step: int) -> float:
        """The factor of 0-based `step`."""
        up = (step + 1) / max(1, self.warmup_steps)
        down = (self.total_steps - step) / max(1, self.decay_steps)
        return min(1.0, up, down)
