"""What a run is at a moment, and what the loop tells its callbacks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """How far the run is."""

    step: int = 0
    tokens_seen: int = 0


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step, as callbacks see it.

    Attributes:
        step: steps done, this one included.
        seconds: wall time of this step alone (batches, forward, backward, update).
        metrics: means over the step's global batch, `loss` in nats a token first.
    """

    step: int
    total_steps: int
    tokens: int
    tokens_seen: int
    lr_factor: float
    grad_norm: float
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
