"""Skip loss spikes, roll back repeated ones, and stop runs that diverge.

A step whose loss or gradient is not finite is always skipped. A loss far above the recent ones is a spike and is
skipped as well, as in OLMo 2 (OLMo et al. 2024, arXiv:2501.00656; 6 standard deviations over 128 steps). If spikes
repeat, the run rolls back to its last good checkpoint and continues with new text, as PaLM did (Chowdhery et al. 2022,
arXiv:2204.02311, section 5.1). The learning rates are halved, because small runs diverge at high rates. These decisions
depend on losses and step numbers only, never on the clock: a resumed run ends like an uninterrupted one, and a run
without spikes is not changed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from groundup.train.fit import Progress, StepReport, diverged

WINDOW = 128  # number of recent losses that spikes are compared with; with fewer, no loss is a spike
SIGMAS = 6.0
MIN_RISE = 0.5  # nats; smaller rises are not spikes, however little the losses vary
SKIP_WINDOW = 32  # batches
MAX_SKIPPED = 8  # of the last SPELL batches; more cause a rollback
LR_FACTOR = 0.5
MAX_ROLLBACKS = 3
NUM_GOOD_CHECKPOINTS = 20  # checkpoints per run that rollbacks can return to
MIN_CHECKPOINT_STEPS = 100  # between these checkpoints


class SpikeGuard:
    """Skip harmful steps, and roll back if they repeat. Also a callback.

    Args:
        progress: Progress of the run; changed by a rollback.
        keep: Saves a good checkpoint.
        restore_good: Restores the last good checkpoint and returns its progress; step 0 without a good checkpoint.
        warn: Prints a warning.
        spikes: Whether to skip steps with a finite loss.
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
        """Return whether loss and gradient are finite and the loss is not a spike."""
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
        """Return the largest loss that is not a spike."""
        if not self._spikes or len(recent) < WINDOW:
            return math.inf
        return statistics.fmean(recent) + max(SIGMAS * statistics.pstdev(recent), MIN_RISE)

    def after_step(self, report: StepReport) -> None:
        """Roll back after repeated spikes, and save good checkpoints."""
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
        # Batches and tokens continue, so the text before the rollback is not read again.
        progress.step = good.step
        progress.recent_losses = good.recent_losses
        progress.skipped = []
        progress.lr_scale *= LR_FACTOR
        progress.rollbacks += 1
        self._warn(
            f"Rolling back to step {good.step:,}: {trouble}. Learning rates are scaled by {progress.lr_scale:g}."
        )
