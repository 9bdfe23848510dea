"""The only training loop. Pre-training, tuning and preference learning are objectives that it is given."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import nn

from groundup.errors import TrainingError
from groundup.objectives import Objective
from groundup.optim import Optimizer, WarmupStableDecay
from groundup.train.state import Progress, StepReport

BatchT = TypeVar("BatchT")


class Callback(Protocol):
    """Something that happens between steps: logging, evaluation, checkpoints. Callbacks run in the order given."""

    def after_step(self, report: StepReport) -> None: ...


def fit(
    model: nn.Module,
    objective: Objective[BatchT],
    batches: Callable[[int], BatchT],
    optimizer: Optimizer,
    schedule: WarmupStableDecay,
    *,
    progress: Progress,
    grad_accum_steps: int = 1,
    max_grad_norm: float = 1.0,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Take steps until `schedule.total_steps` are done.

    Everything that a step depends on is in `model`, `optimizer` and `progress.step`; batches are a pure function of
    their index. So a run that continues from a saved state is the run that was never interrupted.

    Args:
        batches: the micro-batch of a 0-based index since the start of the run.
        progress: updated in place; its `step` says where to begin.
        max_grad_norm: gradients are scaled down to this global norm.

    Raises:
        TrainingError: a gradient is no finite number; the weights are those before that step.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    while progress.step < schedule.total_steps:
        started = time.perf_counter()
        first = progress.step * grad_accum_steps
        micro_batches = [objective.prepare(batches(first + i)) for i in range(grad_accum_steps)]
        normalizer = torch.stack([objective.normalizer(batch) for batch in micro_batches]).sum()
        sums: dict[str, list[float]] = {}
        for batch in micro_batches:
            loss, metrics = objective(model, batch)
            (loss / normalizer).backward()
            for name, (value, count) in metrics.items():
                total = sums.setdefault(name, [0.0, 0.0])
                total[0] += value
                total[1] += count
        grad_norm = float(nn.utils.clip_grad_norm_(parameters, max_grad_norm))
        if not math.isfinite(grad_norm):
            raise TrainingError(
                f"step {progress.step + 1:,}: the gradient's norm is {grad_norm}",
                rule="gradients are finite numbers; this training has diverged, and the step is not taken",
                fix="Lower the learning rates (see `groundup config`), then start again in a new --out.",
            )
        lr_factor = schedule(progress.step)
        optimizer.step(lr_factor)
        progress.step += 1
        progress.tokens_seen += int(normalizer)
        report = StepReport(
            step=progress.step,
            total_steps=schedule.total_steps,
            tokens=int(normalizer),
            tokens_seen=progress.tokens_seen,
            lr_factor=lr_factor,
            grad_norm=grad_norm,
            seconds=time.perf_counter() - started,
            metrics={name: value / count for name, (value, count) in sums.items()},
        )
        for callback in callbacks:
            callback.after_step(report)


def steps_per_second(
    model: nn.Module,
    objective: Objective[BatchT],
    batches: Callable[[int], BatchT],
    optimizer: Optimizer,
    *,
    warmup_steps: int = 2,
    timed_steps: int = 5,
) -> float:
    """The speed of real steps, one micro-batch each: the median of a few, after compilation. Changes the weights."""
    seconds: list[float] = []

    class Stopwatch:
        def after_step(self, report: StepReport) -> None:
            seconds.append(report.seconds)

    steps = warmup_steps + timed_steps
    schedule = WarmupStableDecay(steps, warmup_steps=steps, decay_steps=1)
    fit(model, objective, batches, optimizer, schedule, progress=Progress(), callbacks=[Stopwatch()])
    return 1 / statistics.median(seconds[warmup_steps:])
