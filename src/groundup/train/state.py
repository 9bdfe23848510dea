"""What a run is at a moment, and what the loop tells its callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self


@dataclass(slots=True)
class Progress:
    """How far the run is, and what the next step depends on besides weights and optimizer.

    Attributes:
        step: optimizer steps done, skipped ones included.
        batches: global batches drawn. More than steps, once a run has gone back: what led astray is not read again.
        tokens_seen: as the objective counts them.
        lr_scale: factor on all learning rates, below 1 once a run has gone back.
        returns: how often it has gone back.
        recent_losses: of the last steps that were taken, for `groundup.train.SpikeGuard`.
        skipped: which of the last batches gave no step.
        total_steps: of the run, as they are foreseen now; None: as they were planned. See `groundup.train.Pace`.
        scores: (step, score) of the weights on texts that are not learned, where that is asked for.
        stopped: the run ends here, before its last step.
        logs: name -> size and checksum of each log when this was saved.
    """

    step: int = 0
    tokens_seen: int = 0
    batches: int = 0
    lr_scale: float = 1.0
    returns: int = 0
    recent_losses: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    total_steps: int | None = None
    scores: list[tuple[int, float]] = field(default_factory=list)
    stopped: bool = False
    logs: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """From a checkpoint's values; earlier releases wrote fewer of them."""
        known = {"batches": record["step"]} | {f.name: record[f.name] for f in fields(cls) if f.name in record}
        known["scores"] = [(step, score) for step, score in known.get("scores", ())]
        return cls(**known)

    def count(
        self,
        total_steps: int,
        tokens: int,
        lr_factor: float,
        grad_norm: float,
        seconds: float,
        waited: float,
        metrics: dict[str, float],
        *,
        skipped: bool,
    ) -> StepReport:
        """Count a step, and return its report; for the arguments see `StepReport`."""
        self.step += 1
        self.batches += 1
        self.tokens_seen += tokens
        return StepReport(
            step=self.step,
            total_steps=total_steps,
            tokens=tokens,
            tokens_seen=self.tokens_seen,
            lr_factor=lr_factor,
            grad_norm=grad_norm,
            seconds=seconds,
            waited=waited,
            metrics=metrics,
            skipped=skipped,
            returns=self.returns,
        )


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step, as callbacks see it; the same on every rank.

    Attributes:
        step: steps done, this one included.
        total_steps: of the run, as they were foreseen when this step began.
        seconds: wall time of this step alone (batches, forward, backward, update), the mean of all ranks.
        waited: the part of it in which there was no batch yet.
        metrics: means over the step's global batch, `loss` in nats a token first.
        skipped: the batch gave no step, see `groundup.train.SpikeGuard`.
        returns: how often the run has gone back to an earlier state.
    """

    step: int
    total_steps: int
    tokens: int
    tokens_seen: int
    lr_factor: float
    grad_norm: float
    seconds: float
    waited: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    skipped: bool = False
    returns: int = 0
