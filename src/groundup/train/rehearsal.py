"""What a run will take, found by two or three of its own steps at a learning rate of 0."""

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
class Rehearsal:
    """What steps take here.

    Attributes:
        seconds: of a step.
        bytes: of memory that this process has at its fullest, with all that it holds; -1 where the system does not say.
    """

    seconds: float
    bytes: int


def rehearse(
    model: nn.Module,
    objective: Objective[BatchT],
    largest: BatchT,
    usual: BatchT,
    optimizer: Steps,
    *,
    grad_accum_steps: int = 1,
    device: str,
    ranks: Ranks,
) -> Rehearsal:
    """Take steps that change no weight; every rank joins in.

    A formula does not know how well a machine does: in small steps the optimizer takes most of the time, in short rows
    the memory's speed. The first step is for what is loaded or compiled once.

    Args:
        model: as it is called in training.
        largest: the micro-batch that takes the most memory.
        usual: one that takes as long as they do on average.
        optimizer: one of its own for this, which is let go afterwards.
        grad_accum_steps: micro-batches in a step.
    """
    peak = Peak(device)
    peak.reset()
    _, seconds = _steps(model, objective, [largest, usual], optimizer, 1, ranks)
    if grad_accum_steps > 1:
        (two,) = _steps(model, objective, [usual], optimizer, 2, ranks)
        seconds += (grad_accum_steps - 1) * max(0.0, two - seconds)
    if largest is not usual:  # the optimizer's state, which came with the end of its step, will be there beside it
        _steps(model, objective, [largest], optimizer, 1, ranks)
    return Rehearsal(seconds, peak.bytes)


def _steps(
    model: nn.Module,
    objective: Objective[BatchT],
    batches: Sequence[BatchT],
    optimizer: Steps,
    grad_accum_steps: int,
    ranks: Ranks,
) -> list[float]:
    """The seconds of a step on each batch, which it has once or more often, at no learning rate."""
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
