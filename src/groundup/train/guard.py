"""Skip steps with loss spikes, roll back if spikes repeat, and stop runs that diverge.

A step whose loss or gradient is infinite or NaN is always skipped. A step with a loss spike is also skipped, as in OLMo
2 (OLMo et al. 2024, arXiv:2501.00656). A loss spike is a loss that exceeds the mean of the last 128 losses by 6
standard deviations and by 0.5 nats. If spikes repeat, the run rolls back to its last good checkpoint and continues with
new batches, as for PaLM (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1). A rollback also halves the learning
rates, because small runs diverge if the rates are too high.

Skips and rollbacks depend on losses and step numbers only, never on wall time, so a resumed run ends with the same
weights as an uninterrupted run. If there are no spikes, the guard does not change the run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from groundup.train.fit import Progress, StepReport, diverged

WINDOW = 128  # number of recent losses with which a new loss is compared
SIGMAS = 6.0  # minimum size of a spike in standard deviations of the recent losses
MIN_RISE = 0.5  # minimum size of a spike in nats above the mean of the recent losses
SKIP_WINDOW = 32  # number of recent batches in which skipped steps are counted
MAX_SKIPPED = 8  # number of skipped steps among the last SKIP_WINDOW batches that causes a rollback
LR_FACTOR = 0.5  # factor on the learning rates at each rollback
MAX_ROLLBACKS = 3
NUM_GOOD_CHECKPOINTS = 20  # number of evenly spaced steps per run at which a checkpoint for rollbacks is saved
MIN_CHECKPOINT_STEPS = 100  # minimum number of steps between two checkpoints for rollbacks


class SpikeGuard:
    """Guard that skips steps with loss spikes, and rolls back if spikes repeat.

    Pass a `SpikeGuard` to `fit` both as the guard and as a callback; the callback saves good checkpoints and rolls
    back.

    Args:
        progress: Progress of the run, which a rollback sets back.
        keep: Saves a good checkpoint, for rollbacks.
        restore_good: Restores the last good checkpoint and returns its progress, or returns a progress with step 0 if
            there is no good checkpoint.
        warn: Prints a warning.
        spikes: Whether to skip steps with loss spikes. Steps with an infinite or NaN loss or gradient are always
            skipped.
    """

    def __init__(
        self,
        progress: Progress,
        keep: Callable[[Progress], None],
        restore_good: Callable[[], Progress],
        warn: Callable[[str], None],
        *,
        spikes: bool = True,
    ) -> None:
        self._progress = progress
        self._keep = keep
        self._restore_good = restore_good
        self._warn = warn
        self._spikes = spikes

    def should_step(self, progress: Progress, loss: float, grad_norm: float) -> bool:
        """Return whether the loss and the gradient are finite and the loss is not a spike."""
        recent = progress.recent_losses
        progress.skipped = [batch for batch in progress.skipped if batch > progress.batches - SKIP_WINDOW]
        if math.isfinite(loss) and math.isfinite(grad_norm) and loss <= self._highest(recent):
            recent.append(loss)
            del recent[:-WINDOW]
            return True
        progress.skipped.append(progress.batches)
        self._warn(f"Skipping step {progress.step + 1:,}: loss {loss:.3f}, gradient norm {grad_norm:.3g}.")
        return False

    def _highest(self, recent: list[float]) -> float:
        """Return the loss above which a loss is a spike, or infinity if there are fewer than `WINDOW` losses."""
        if not self._spikes or len(recent) < WINDOW:
            return math.inf
        return statistics.fmean(recent) + max(SIGMAS * statistics.pstdev(recent), MIN_RISE)

    def after_step(self, report: StepReport) -> None:
        """Roll back if spikes repeat; otherwise save a good checkpoint at regular intervals."""
        progress = self._progress
        every = max(MIN_CHECKPOINT_STEPS, report.total_steps // NUM_GOOD_CHECKPOINTS)
        if len(progress.skipped) >= MAX_SKIPPED:
            self._roll_back(report)
        elif report.step % every == 0 and not progress.skipped:
            self._keep(progress)

    def _roll_back(self, report: StepReport) -> None:
        progress = self._progress
        trouble = f"step {report.step:,}: {len(progress.skipped)} of the last {SKIP_WINDOW} steps were skipped"
        if progress.rollbacks == MAX_ROLLBACKS:
            raise diverged(f"{trouble}, after {MAX_ROLLBACKS} rollbacks")
        good = self._restore_good()
        if not good.step:
            raise diverged(f"{trouble}, before the first good checkpoint")
        # `batches` and `tokens_seen` are not reset, so training continues with new batches.
        progress.step = good.step
        progress.recent_losses = good.recent_losses
        progress.skipped = []
        progress.lr_scale *= LR_FACTOR
        progress.rollbacks += 1
        self._warn(
            f"Rolling back to step {good.step:,}: {trouble}. Learning rates are scaled by {progress.lr_scale:g}."
        )
