"""Measure time and memory of training steps, at a learning rate of 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from groundup.distributed.ranks import Ranks
from groundup.kernels.memory import Peak
from groundup.optim import WarmupStableDecay
from groundup.train.fit import Progress, Steps, Stopwatch, fit
from groundup.train.objectives import Objective

BatchT = TypeVar("BatchT")


@dataclass(frozen=True, slots=True)
class StepCost:
    """Measured cost of training steps.

    Attributes:
        seconds: Time of a step.
        bytes: Peak memory of this process; -1 if the system does not report it.
    """

    seconds: float
    bytes: int


def measure_steps(
    model: nn.Module,
    objective: Objective[BatchT],
    largest: BatchT,
    usual: BatchT,
    optimizer: Steps,
    *,
    grad_accum_steps: int = 1,
    device: str,
    ranks: Ranks,
) -> StepCost:
    """Measure steps that do not change the weights; every rank takes part.

    A formula cannot predict the speed: small steps are limited by the optimizer, short rows by memory bandwidth. The
    first step loads libraries and compiles.

    Args:
        model: Module that training calls.
        objective: Loss to minimize.
        largest: Micro-batch with the highest memory use.
        usual: Micro-batch with the mean time.
        optimizer: Optimizer for the measurement only; it is discarded.
        grad_accum_steps: Micro-batches per step.
        device: Device of the model.
        ranks: Ranks of the run.
    """
    peak = Peak(device)
    peak.reset()
    _, seconds = _steps(model, objective, [largest, usual], optimizer, 1, ranks)
    if grad_accum_steps > 1:
        (two,) = _steps(model, objective, [usual], optimizer, 2, ranks)
        seconds += (grad_accum_steps - 1) * max(0.0, two - seconds)
    if largest is not usual:  # the optimizer state now exists
        _steps(model, objective, [largest], optimizer, 1, ranks)
    return StepCost(seconds, peak.bytes)


def _steps(
    model: nn.Module,
    objective: Objective[BatchT],
    batches: Sequence[BatchT],
    optimizer: Steps,
    grad_accum_steps: int,
    ranks: Ranks,
) -> list[float]:
    """Return the seconds of a step on each batch, at a learning rate of 0."""
    watch = Stopwatch()
    fit(
        model,
        objective,
        lambda index: batches[index // grad_accum_steps],
        optimizer,
        WarmupStableDecay(len(batches), warmup_steps=1, decay_steps=1),
        progress=Progress(lr_scale=0.0),
        grad_accum_steps=grad_accum_steps,
        callbacks=[watch],
        ranks=ranks,
    )
    return watch.seconds
