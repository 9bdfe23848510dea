"""Measure the time and the memory of training steps. The measured steps have a learning rate of 0."""

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
        seconds: Time of a step in seconds.
        bytes: Peak memory of this process in bytes, or -1 if the system does not report memory use.
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
    """Measure the time and the peak memory of training steps without changing the weights, on every rank.

    The time is measured because a formula based on FLOPs would be inaccurate: in small steps the optimizer dominates
    the time, and for short rows the memory bandwidth does. The first step, which loads libraries and compiles the
    model, is not part of the measured time.

    Args:
        model: Module on which training runs the forward pass.
        objective: Loss to minimize.
        largest: Micro-batch with the highest memory use.
        usual: Micro-batch of typical size, for measuring the time.
        optimizer: Optimizer that is used only for the measurement and then discarded.
        grad_accum_steps: Number of micro-batches per step.
        device: Device of the model.
        ranks: Ranks of the run.
    """
    peak = Peak(device)
    peak.reset()
    _, seconds = _steps(model, objective, [largest, usual], optimizer, 1, ranks)
    if grad_accum_steps > 1:
        (two,) = _steps(model, objective, [usual], optimizer, 2, ranks)
        seconds += (grad_accum_steps - 1) * max(0.0, two - seconds)
    if largest is not usual:  # This step measures the peak memory after the optimizer state is allocated.
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
    """Take a step on each batch at a learning rate of 0, and return the seconds of each step."""
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
