"""Keep the best checkpoint of a run by a validation score, and stop early."""

from __future__ import annotations

import math
from collections.abc import Callable

from groundup.train.callbacks import EqualParts
from groundup.train.checkpoints import Checkpoints
from groundup.train.fit import Progress, StepReport


class KeepBest:
    """Callback that scores the weights at equal parts of a run and at its end, and keeps the best checkpoint.

    The steps to score do not depend on the clock, except if it sets the number of steps (`groundup.train.TimeLimit`).
    Scores are saved with the progress, so an interrupted run selects the same checkpoint as an uninterrupted one.

    Args:
        progress: Progress of the run; its `stopped` is set to end the run.
        score: Scores the current weights, lower is better; the same on every rank.
        checkpoints: Directory of the best checkpoint only.
        times: Number of scores, including the end.
        patience: Number of scores in a row without a new best after which training stops; None: never.
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
        """Score the weights if the step completes a part."""
        if self._progress.step != report.step:  # the guard rolled back, and these are the weights of that step
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
            self._log(f"Early stopping at step {report.step:,}: no new best in {since} scores.")

    def _drop_scores_after_rollback(self) -> None:
        """Drop scores after the step of the rollback, but keep the best, whose checkpoint exists."""
        scores = self._progress.scores
        best = min(scores, key=lambda pair: pair[1], default=None)
        scores[:] = [pair for pair in scores if pair[0] <= self._progress.step or pair == best]

    def restore_best(self) -> tuple[int, float]:
        """Restore the best checkpoint; return its step and score."""
        step = self._checkpoints.restore().step
        # After a rollback a step may have two scores.
        return step, min(score for scored, score in self._progress.scores if scored == step)
