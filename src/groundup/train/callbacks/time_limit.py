"""Adjust the number of steps so that a run ends on time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from groundup.distributed.ranks import Ranks
from groundup.train.fit import Progress, StepReport

NUM_ADJUSTMENTS = 100  # number of times per run that the total number of steps is adjusted
_WARMUP_STEPS = 2  # number of steps that are not measured, because they may compile the model
_MEASURED_FRACTION = 1 / 3  # last fraction of the elapsed time over which the speed is measured
_SINGLE_RANK = Ranks()


class _Adjustment(NamedTuple):
    """The state at an adjustment.

    Attributes:
        time: Time of the adjustment.
        batches: `Progress.batches`.
        in_steps: Seconds in steps since the first adjustment, without evaluations and checkpoints.
    """

    time: float
    batches: int
    in_steps: float


class TimeLimit:
    """Callback that adjusts the number of steps during a run, so that the run ends on time at its current speed.

    Measuring the speed only before step 1 is not enough on a shared machine, because the speed may change. The learning
    rate schedule is scaled to the new number of steps, so the learning rate still decays to 0.

    Args:
        progress: Progress of the run. The callback sets `progress.total_steps`.
        end: Time at which the run should end, as a value of `clock`.
        clock: Returns the wall time of the run in seconds, including the time of earlier, interrupted processes.
        max_steps: Maximum number of steps.
        ranks: Ranks of the run. All ranks use the clock of the first rank.
    """

    def __init__(
        self,
        progress: Progress,
        end: float,
        clock: Callable[[], float],
        *,
        max_steps: int,
        ranks: Ranks = _SINGLE_RANK,
    ) -> None:
        self._progress = progress
        self._end = end
        self._clock = clock
        self._max_steps = max_steps
        self._ranks = ranks
        self._settled = progress.batches + _WARMUP_STEPS
        self._passed: deque[_Adjustment] = deque()
        self._began = 0.0
        self._in_steps = 0.0

    def after_step(self, report: StepReport) -> None:
        """Adjust the number of steps to the remaining time, about 100 times per run."""
        progress = self._progress
        self._in_steps += report.seconds
        due = progress.batches % max(1, report.total_steps // NUM_ADJUSTMENTS) == 0
        if not due or progress.batches < self._settled or report.step == report.total_steps:
            return
        now: float = self._ranks.broadcast_object(self._clock())
        if not self._passed:
            self._began, self._in_steps = now, 0.0
        self._passed.append(_Adjustment(now, progress.batches, self._in_steps))
        while len(self._passed) > 2 and self._passed[1].time <= now - _MEASURED_FRACTION * (now - self._began):
            self._passed.popleft()
        first = self._passed[0]
        if now > self._began and self._in_steps > first.in_steps:
            # The speed is that of the steps: an evaluation can take as long as the steps over which it is measured.
            speed = (progress.batches - first.batches) / (self._in_steps - first.in_steps)
            share = min(self._in_steps / (now - self._began), 1.0)
            left = round((self._end - now) * share * speed)
            progress.total_steps = max(progress.step + 1, min(progress.step + left, self._max_steps))
