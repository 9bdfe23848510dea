"""The only training loop. Pre-training, tuning and preference learning are objectives that it is given."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from groundup.core.errors import TrainingError
from groundup.distributed import sync_gradients, whole
from groundup.distributed.ranks import Ranks
from groundup.optim import WarmupStableDecay
from groundup.train.objectives import Metrics, Objective


@dataclass(slots=True)
class Progress:
    """How far the run is, and what the next step depends on besides weights and optimizer.

    Attributes:
        step: optimizer steps done, skipped ones included.
        batches: global batches drawn. More than steps, once a run has gone back: what led astray is not read again.
        tokens_seen: as the objective counts them.
        lr_scale: factor on all learning rates, below 1 once a run has gone back.
        rollbacks: Number of rollbacks to an earlier state.
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
    rollbacks: int = 0
    recent_losses: list[float] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    total_steps: int | None = None
    scores: list[tuple[int, float]] = field(default_factory=list)
    stopped: bool = False
    logs: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """From a checkpoint's values; earlier releases wrote fewer of them."""
        known = {"batches": record["step"], "rollbacks": record.get("returns", 0)} | {
            f.name: record[f.name] for f in fields(cls) if f.name in record
        }
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
            rollbacks=self.rollbacks,
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
        rollbacks: Number of rollbacks of the run to an earlier state.
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
    rollbacks: int = 0


class Guard(Protocol):
    """Decides whether a step is taken."""

    def admits(self, progress: Progress, loss: float, grad_norm: float) -> bool:
        """Whether the gradient may be used.

        Raises:
            TrainingError: the run cannot go on.
        """
        ...


class NoGuard:
    """Every step is taken; the first that cannot be ends the run."""

    def admits(self, progress: Progress, loss: float, grad_norm: float) -> bool:
        if not math.isfinite(grad_norm):
            raise diverged(f"step {progress.step + 1:,}: the gradient's norm is {grad_norm}")
        return True


def diverged(trouble: str) -> TrainingError:
    """The error of a run that cannot go on."""
    return TrainingError(
        trouble,
        rule="losses and gradients are finite numbers that do not jump; this training has diverged",
        fix="Lower learning_rate, then start again in a new --out.",
    )


BatchT = TypeVar("BatchT")

_CLIP_EPS = 1e-6  # what `torch.nn.utils.clip_grad_norm_` adds to the norm that it divides by


class Callback(Protocol):
    """Something that happens between steps: logging, evaluation, checkpoints. Callbacks run in the order given."""

    def after_step(self, report: StepReport) -> None: ...


class Steps(Protocol):
    """What updates the weights: `groundup.optim.Optimizer`, or `groundup.distributed.ShardedOptimizer`."""

    def step(self, lr_factor: float, grad_factor: Tensor | None = None) -> None: ...


def fit(  # noqa: PLR0913 - everything that a step depends on is an argument
    model: nn.Module,
    objective: Objective[BatchT],
    batches: Callable[[int], BatchT],
    optimizer: Steps,
    schedule: WarmupStableDecay,
    *,
    progress: Progress,
    grad_accum_steps: int = 1,
    max_grad_norm: float = 1.0,
    callbacks: Sequence[Callback] = (),
    guard: Guard | None = None,
    ranks: Ranks | None = None,
) -> None:
    """Take steps until all are done, or a callback says with `progress.stopped` that it is enough.

    There are `schedule.total_steps` of them, unless `progress.total_steps` is set. A step depends only on `model`,
    `optimizer`, `progress` and the index of its batches: a resumed run is the run that was never interrupted.

    Args:
        model: as `groundup.distributed.parallel_model` gives it.
        batches: this rank's micro-batch of a 0-based index since the start of the run.
        progress: updated in place; says where to begin.
        grad_accum_steps: micro-batches of a rank in a step.
        max_grad_norm: gradients are scaled down to this global norm.
        guard: decides which steps are taken; by default all, and a gradient that is no finite number ends the run.

    Raises:
        TrainingError: training has diverged; the weights are those before the step that showed it.
    """
    guard, ranks = guard or NoGuard(), ranks or Ranks()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    while progress.step < (total_steps := progress.total_steps or schedule.total_steps) and not progress.stopped:
        started = time.perf_counter()
        first = progress.batches * grad_accum_steps
        micro_batches = [batches(first + i) for i in range(grad_accum_steps)]
        waited = time.perf_counter() - started
        micro_batches = [objective.prepare(batch, model) for batch in micro_batches]
        normalizer = ranks.sum(torch.stack([objective.normalizer(batch) for batch in micro_batches]).sum())
        means = _backward(model, objective, micro_batches, normalizer, ranks)
        norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        grad_norm = float(norm)
        lr_factor = schedule.over(total_steps)(progress.step) * progress.lr_scale
        taken = guard.admits(progress, means["loss"], grad_norm)
        if taken:
            too_long = grad_norm + _CLIP_EPS > max_grad_norm
            optimizer.step(lr_factor, max_grad_norm / (norm.float() + _CLIP_EPS) if too_long else None)
        for parameter in parameters:
            parameter.grad = None
        seconds, waited = _rank_means([time.perf_counter() - started, waited], ranks)
        tokens = int(normalizer)
        report = progress.count(total_steps, tokens, lr_factor, grad_norm, seconds, waited, means, skipped=not taken)
        for callback in callbacks:
            callback.after_step(report)


def _backward(
    model: nn.Module,
    objective: Objective[BatchT],
    micro_batches: Sequence[BatchT],
    normalizer: Tensor,
    ranks: Ranks,
) -> dict[str, float]:
    """Accumulate the gradients of a step, and return the means of its metrics."""
    found: list[Metrics] = []
    for number, batch in enumerate(micro_batches, 1):
        sync_gradients(model, last=number == len(micro_batches))
        loss, metrics = objective(model, batch)
        (loss / (normalizer / ranks.size)).backward()  # ranks' gradients are averaged, and ours is a sum
        found.append(metrics)
    return _means(found, ranks)


def _rank_means(values: Sequence[float], ranks: Ranks) -> list[float]:
    """Return the mean of each value over all ranks."""
    means: list[float] = (ranks.sum(torch.tensor(values, dtype=torch.float64)) / ranks.size).tolist()
    return means


def _means(found: Sequence[Metrics], ranks: Ranks) -> dict[str, float]:
    """Means over the micro-batches of all ranks, from sums and counts."""
    names = list(found[0])
    told = [[[float(number) for number in metrics[name]] for name in names] for metrics in found]
    totals = ranks.sum(torch.tensor(told, dtype=torch.float64).sum(0)).tolist()
    return {name: value / count for name, (value, count) in zip(names, totals, strict=True)}


class Stopwatch:
    """The seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def after_step(self, report: StepReport) -> None:
        self.seconds.append(report.seconds)


def steps_per_second(
    model: nn.Module,
    objective: Objective[BatchT],
    batches: Callable[[int], BatchT],
    optimizer: Steps,
    *,
    warmup_steps: int = 2,
    timed_steps: int = 3,
    ranks: Ranks | None = None,
) -> float:
    """The speed of real steps, one micro-batch each: the median of a few, after compilation. Changes the weights."""
    watch = Stopwatch()
    steps = warmup_steps + timed_steps
    schedule = WarmupStableDecay(steps, warmup_steps=steps, decay_steps=1)
    fit(model, objective, batches, optimizer, schedule, progress=Progress(), callbacks=[watch], ranks=ranks)
    return 1 / statistics.median(watch.seconds[warmup_steps:])
