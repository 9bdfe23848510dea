"""The only training loop. Pre-training, tuning and preference learning are objectives that it is given."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from groundup.distributed import sync_gradients, whole
from groundup.distributed.ranks import Ranks
from groundup.optim import WarmupStableDecay
from groundup.train.guard import Guard, NoGuard
from groundup.train.objectives import Metrics, Objective
from groundup.train.state import Progress, StepReport

BatchT = TypeVar("BatchT")

_CLIP_EPS = 1e-6  # what `torch.nn.utils.clip_grad_norm_` adds to the norm that it divides by


class Callback(Protocol):
    """Something that happens between steps: logging, evaluation, checkpoints. Callbacks run in the order given."""

    def after_step(self, report: StepReport) -> None: ...


class Steps(Protocol):
    """What updates the weights: `groundup.optim.Optimizer`, or `groundup.distributed.ShardedOptimizer`."""

    def step(self, lr_factor: float, grad_factor: Tensor | None = None) -> None: ...


def fit(
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
