"""The training loop, which pretraining and fine-tuning use with different objectives."""

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
from groundup.distributed import full_tensor, sync_gradients
from groundup.distributed.ranks import Ranks
from groundup.optim import WarmupStableDecay
from groundup.train.objectives import Metrics, Objective


@dataclass(slots=True)
class Progress:
    """Training state that is saved in each checkpoint, besides weights and optimizer state.

    Attributes:
        step: Number of completed optimizer steps, including skipped steps.
        tokens_seen: Number of training tokens so far, as counted by the objective's `normalizer`.
        batches: Number of global batches read so far. After a rollback, `batches` is larger than `step`, because
            training continues with new batches.
        lr_scale: Factor on all learning rates, which is halved by each rollback.
        rollbacks: Number of rollbacks to an earlier checkpoint.
        recent_losses: Losses of the last steps that updated the weights, for `groundup.train.SpikeGuard`.
        skipped: Indices of the recent batches whose steps were skipped.
        total_steps: Number of steps of the run as adjusted by `groundup.train.TimeLimit`, or None if the run takes the
            planned number of steps.
        scores: Pairs of a step and its validation score, used to select the best checkpoint.
        stopped: Whether the run stops early, after the current step.
        logs: Maps the file name of each log to its size and checksum at the time of the checkpoint.
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
        """Return the progress from its fields as JSON values. Other keys are ignored."""
        known = {f.name: record[f.name] for f in fields(cls)}
        return cls(**known | {"scores": [(step, score) for step, score in record["scores"]]})

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
        """Count a step and return the report of the step. The arguments are described in `StepReport`."""
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
    """Report of an optimizer step for callbacks. All ranks get the same report.

    Attributes:
        step: Number of completed steps, including this step.
        total_steps: Number of steps of the run, as estimated at the beginning of this step.
        tokens: Number of tokens in this step, as counted by the objective's `normalizer`.
        tokens_seen: Number of tokens in all steps so far.
        lr_factor: Factor on the learning rates.
        grad_norm: Norm of the gradient before clipping.
        seconds: Wall time of the step, including the loading of batches, averaged over ranks.
        waited: Seconds of the step that were spent waiting for batches, averaged over ranks.
        metrics: Means of the metrics over the global batch. The metric `loss` always exists.
        skipped: Whether `groundup.train.SpikeGuard` skipped the step, so that the weights did not change.
        rollbacks: Number of rollbacks of the run so far.
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
    """Interface of guards, which decide whether a step updates the weights."""

    def should_step(self, progress: Progress, loss: float, grad_norm: float) -> bool:
        """Return whether the optimizer updates the weights with this gradient.

        Raises:
            TrainingError: The run cannot continue.
        """
        ...


class NoGuard:
    """Guard that accepts every step, and raises an error if a gradient is infinite or NaN."""

    def should_step(self, progress: Progress, loss: float, grad_norm: float) -> bool:
        """Return True if the gradient norm is finite; otherwise raise an error."""
        if not math.isfinite(grad_norm):
            raise diverged(f"step {progress.step + 1:,}: the gradient's norm is {grad_norm}")
        return True


def diverged(trouble: str) -> TrainingError:
    """Return the error for a run that diverged."""
    return TrainingError(
        f"training diverged: {trouble}", fix="Lower learning_rate, and start again in a new --out directory."
    )


BatchT = TypeVar("BatchT")

_CLIP_EPS = 1e-6  # constant that is added to the gradient norm, as in `torch.nn.utils.clip_grad_norm_`


class Callback(Protocol):
    """An object that is called after each step, e.g. to log, evaluate, or save checkpoints.

    Callbacks are called in the order in which they are passed to `fit`.
    """

    def after_step(self, report: StepReport) -> None:
        """Handle the report of a step."""
        ...


class Steps(Protocol):
    """Interface of the optimizers `groundup.optim.Optimizer` and `groundup.distributed.ShardedOptimizer`."""

    def step(self, lr_factor: float, grad_factor: Tensor | None = None, *, fraction: float = 1.0) -> None:
        """Update the weights; see `groundup.optim.Optimizer.step`."""
        ...


def fit(  # noqa: PLR0913 - a step depends on all of its arguments
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
    """Train until all steps are completed, or until a callback sets `progress.stopped`.

    The number of steps is `progress.total_steps` or, if that is None, `schedule.total_steps`. A step depends only on
    `model`, `optimizer`, `progress` and the indices of its batches, so a resumed run ends with the same weights as an
    uninterrupted run.

    Args:
        model: Model, wrapped by DDP or FSDP if several ranks train it; see `groundup.distributed.parallel_model`.
        objective: Loss to minimize.
        batches: Returns the micro-batch of this rank at a 0-based index.
        optimizer: Updates the weights.
        schedule: Learning rate schedule.
        progress: Progress at which training starts, updated in place.
        grad_accum_steps: Number of micro-batches per step on each rank.
        max_grad_norm: Maximum global norm of the gradient; gradients with a larger norm are clipped.
        callbacks: Callbacks that are called after each step.
        guard: Decides which steps update the weights; by default all steps do, and an infinite or NaN gradient raises
            an error.
        ranks: Ranks of the run.

    Raises:
        TrainingError: Training diverged. The step that diverged did not change the weights.
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
        norm = full_tensor(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        grad_norm = float(norm)
        lr_factor = schedule.with_total_steps(total_steps)(progress.step) * progress.lr_scale
        taken = guard.should_step(progress, means["loss"], grad_norm)
        if taken:
            too_long = grad_norm + _CLIP_EPS > max_grad_norm
            grad_factor = max_grad_norm / (norm.float() + _CLIP_EPS) if too_long else None
            optimizer.step(lr_factor, grad_factor, fraction=progress.step / total_steps)
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
    """Accumulate the gradients of the micro-batches of a step, and return the means of the metrics."""
    found: list[Metrics] = []
    for number, batch in enumerate(micro_batches, 1):
        sync_gradients(model, last=number == len(micro_batches))
        loss, metrics = objective(model, batch)
        # The loss is a sum over all ranks, but DDP averages the gradients, so the loss is multiplied by `ranks.size`.
        (loss / (normalizer / ranks.size)).backward()
        found.append(metrics)
        # The small tensors of the graph are between the large ones. If they are not freed before the next micro-batch,
        # they split the free memory, so that the heap grows.
        del loss
    return _means(found, ranks)


def _rank_means(values: Sequence[float], ranks: Ranks) -> list[float]:
    """Return the mean of each value over all ranks."""
    means: list[float] = (ranks.sum(torch.tensor(values, dtype=torch.float64)) / ranks.size).tolist()
    return means


def _means(found: Sequence[Metrics], ranks: Ranks) -> dict[str, float]:
    """Return the mean of each metric over the micro-batches of all ranks, from their sums and counts."""
    names = list(found[0])
    values = [[[float(number) for number in metrics[name]] for name in names] for metrics in found]
    totals = ranks.sum(torch.tensor(values, dtype=torch.float64).sum(0)).tolist()
    return {name: value / count for name, (value, count) in zip(names, totals, strict=True)}


class Stopwatch:
    """Callback that records the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def after_step(self, report: StepReport) -> None:
        """Record the time of a step."""
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
    """Return the median number of optimizer steps per second, measured after compilation.

    Each step has one micro-batch. The measured steps change the weights.

    Args:
        model: Model, wrapped by DDP or FSDP if several ranks train it.
        objective: Loss to minimize.
        batches: Returns the micro-batch of this rank at a 0-based index.
        optimizer: Updates the weights.
        warmup_steps: Number of steps before the measurement, in which the model is compiled.
        timed_steps: Number of measured steps.
        ranks: Ranks of the run.
    """
    watch = Stopwatch()
    steps = warmup_steps + timed_steps
    schedule = WarmupStableDecay(steps, warmup_steps=steps, decay_steps=1)
    fit(model, objective, batches, optimizer, schedule, progress=Progress(), callbacks=[watch], ranks=ranks)
    return 1 / statistics.median(watch.seconds[warmup_steps:])
