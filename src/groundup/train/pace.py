"""A run that ends on time: how many steps it has is foreseen anew while it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from groundup.distributed.ranks import Ranks
from groundup.train.fit import Progress, StepReport

REVIEWS = 100  # times that the last step is foreseen anew in a run
_SETTLED = 2  # steps after which speed is measured: the first ones may compile
_LOOKED_BACK = 1 / 3  # of the time since then: what the machine does now, with all that happens between steps
_ALONE = Ranks()


class Pace:
    """Sets `progress.total_steps` so that the run ends at its time, at the speed of its latest steps. A callback.

    A few steps before step 1 say little of a machine that others use as well: one that slowed down by a quarter
    afterwards made twelve and a half minutes of ten. The schedule stretches and shrinks with the run, so that its
    learning rate comes down in any case.

    Args:
        progress: of the run.
        end: what `clock` shows when the run should be over.
        clock: seconds that the run has taken, those of earlier processes included.
        most: steps that it has at the utmost.
        ranks: all of them go by the first one's clock.
    """

    def __init__(
        self,
        progress: Progress,
        end: float,
        clock: Callable[[], float],
        *,
        most: int,
        ranks: Ranks = _ALONE,
    ) -> None:
        self._progress = progress
        self._end = end
        self._clock = clock
        self._most = most
        self._ranks = ranks
        self._settled = progress.batches + _SETTLED
        self._passed: deque[tuple[float, int]] = deque()  # (time, batches) of the reviews that are looked back to
        self._began = 0.0

    def after_step(self, report: StepReport) -> None:
        progress = self._progress
        due = progress.batches % max(1, report.total_steps // REVIEWS) == 0
        if not due or progress.batches < self._settled or report.step == report.total_steps:
            return
        now: float = self._ranks.broadcast_object(self._clock())
        if not self._passed:
            self._began = now
        self._passed.append((now, progress.batches))
        while len(self._passed) > 2 and self._passed[1][0] <= now - _LOOKED_BACK * (now - self._began):
            self._passed.popleft()
        then, batches = self._passed[0]
        if now > then:
            left = round((self._end - now) * (progress.batches - batches) / (now - then))
            progress.total_steps = max(progress.step + 1, min(progress.step + left, self._most))
