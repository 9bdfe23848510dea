"""Trouble in training: which steps are not taken, when a run goes back, and when it gives up.

A step whose loss or gradient is no finite number is never taken. A loss far above those of the last steps is a spike:
that step is skipped, too, as OLMo 2 does (OLMo et al. 2024, arXiv:2501.00656; 6 standard deviations over 128 steps).
Where spikes come again and again, the run goes back to its last good state and on with text that it has not read yet,
as PaLM did (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1), at half the learning rates: what small runs diverge
of. All this depends on losses and step numbers only, never on the clock, so that a run that was cut off ends as one
that was not; and a run without trouble is not touched.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from groundup.train.fit import Progress, StepReport, diverged

WINDOW = 128  # steps whose losses are remembered; no loss is called a spike before there are so many
SIGMAS = 6.0
MIN_RISE = 0.5  # nats: even in a run whose losses hardly differ, less is no trouble
SPELL = 32  # batches, of which
MAX_SKIPPED = 8  # so many may be skipped before the run goes back
LR_FACTOR = 0.5
MAX_ROLLBACKS = 3
KEPT_STATES = 20  # a good state is kept this often in a run,
FEWEST_STEPS = 100  # but not after fewer steps than these


class SpikeGuard:
    """Skips steps that would do harm, and goes back where they come again and again. Also a callback.

    Args:
        progress: of the run; changed when it goes back.
        keep: writes the state down as a good one.
        go_back: takes the last good state up again and says at which progress it was; step 0 where there is none.
        say: tells the user.
        spikes: whether a finite loss can be one.
    """

    def __init__(
        self,
        progress: Progress,
        keep: Callable[[Progress], None],
        go_back: Callable[[], Progress],
        say: Callable[[str], None],
        *,
        spikes: bool = True,
    ) -> None:
        self._progress = progress
        self._keep = keep
        self._go_back = go_back
        self._say = say
        self._spikes = spikes

    def admits(self, progress: Progress, loss: float, grad_norm: float) -> bool:
        recent = progress.recent_losses
        progress.skipped = [batch for batch in progress.skipped if batch > progress.batches - SPELL]
        if math.isfinite(loss) and math.isfinite(grad_norm) and loss <= self._highest(recent):
            recent.append(loss)
            del recent[:-WINDOW]
            return True
        progress.skipped.append(progress.batches)
        self._say(f"Step {progress.step + 1:,} is skipped: loss {loss:.3f}, norm of the gradient {grad_norm:.3g}.")
        return False

    def _highest(self, recent: list[float]) -> float:
        """The largest loss that is no spike."""
        if not self._spikes or len(recent) < WINDOW:
            return math.inf
        return statistics.fmean(recent) + max(SIGMAS * statistics.pstdev(recent), MIN_RISE)

    def after_step(self, report: StepReport) -> None:
        progress = self._progress
        every = max(FEWEST_STEPS, report.total_steps // KEPT_STATES)
        if len(progress.skipped) >= MAX_SKIPPED:
            self._roll_back(report)
        elif report.step % every == 0 and not progress.skipped:
            self._keep(progress)

    def _roll_back(self, report: StepReport) -> None:
        progress = self._progress
        trouble = f"step {report.step:,}: {len(progress.skipped)} of the last {SPELL} steps were skipped"
        if progress.rollbacks == MAX_ROLLBACKS:
            raise diverged(f"{trouble}, after {MAX_ROLLBACKS} rollbacks")
        good = self._go_back()
        if not good.step:
            raise diverged(f"{trouble}, before there was a good state to go back to")
        # Batches and tokens go on: what led astray is not read again.
        progress.step = good.step
        progress.recent_losses = good.recent_losses
        progress.skipped = []
        progress.lr_scale *= LR_FACTOR
        progress.rollbacks += 1
        self._say(f"{trouble}: back to step {good.step:,}, with other text and {progress.lr_scale:g} of the rates.")
