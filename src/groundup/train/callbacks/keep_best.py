"""Select the best checkpoint of a run by its validation score, and stop the run early if the score stops improving."""

from __future__ import annotations

import math
from collections.abc import Callable

from groundup.train.callbacks.progress import EqualParts
from groundup.train.checkpoints import Checkpoints
from groundup.train.fit import Progress, StepReport


class KeepBest:
    """Callback that computes validation scores at evenly spaced steps, and keeps the checkpoint with the best score.

    The last step is always scored. The scored steps do not depend on wall time, unless `groundup.train.TimeLimit`
    adjusts the number of steps. Scores are saved in each checkpoint of the run, so an interrupted run selects the same
    checkpoint as an uninterrupted run.

    Args:
        progress: Progress of the run. To stop the run early, the callback sets `progress.stopped`.
        score: Returns the score of the current weights, which must be the same on all ranks. A lower score is better.
        checkpoints: Checkpoints in a separate directory, which contains only the best checkpoint.
        times: Number of scores, including the score of the last step.
        patience: Number of consecutive scores without improvement after which the run stops early, or None to never
            stop early.
        log: Prints a message.
    """

    def __init__(
        self,
        progress: Progress,
        score: Callable[[], float],
        checkpoints: Checkpoints,
        *,
        times: int,
        patience: int | None,
        log: Callable[[str], None],
    ) -> None:
        self._progress = progress
        self._score = score
        self._checkpoints = checkpoints
        self._parts = EqualParts(times)
        self._patience = patience
        self._log = log

    def after_step(self, report: StepReport) -> None:
        """Compute a validation score of the weights if this step is one of the steps to score."""
        # If the guard rolled back after this step, the model has the weights of an earlier step.
        if self._progress.step != report.step:
            self._drop_scores_after_rollback()
            return
        if not self._parts.passed(report):
            return
        score = self._score()
        before = self._progress.scores
        best = min((value for _, value in before), default=math.inf)
        before.append((report.step, score))
        if score < best or len(before) == 1:
            self._checkpoints.save(self._progress)
            return
        since = len(before) - 1 - min(range(len(before)), key=lambda n: before[n][1])
        if self._patience is not None and since >= self._patience and report.step < report.total_steps:
            self._progress.stopped = True
            self._log(f"Early stopping at step {report.step:,}: no improvement in {since} validation scores.")

    def _drop_scores_after_rollback(self) -> None:
        """Drop the scores of later steps than the restored step, but keep the best score, whose checkpoint exists."""
        scores = self._progress.scores
        best = min(scores, key=lambda pair: pair[1], default=None)
        scores[:] = [pair for pair in scores if pair[0] <= self._progress.step or pair == best]

    def restore_best(self) -> tuple[int, float]:
        """Restore the best checkpoint, and return its step and its score."""
        step = self._checkpoints.restore().step
        # After a rollback, the same step may have been scored twice.
        return step, min(score for scored, score in self._progress.scores if scored == step)
