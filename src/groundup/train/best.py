"""The best state of a run, by a score on texts that are not learned; and the end of a run that gets no better."""

from __future__ import annotations

import math
from collections.abc import Callable

from groundup.train.callbacks import Parts
from groundup.train.checkpoints import Checkpoints
from groundup.train.fit import Progress, StepReport


class KeepBest:
    """Scores the weights at equal parts of a run and at its end, and keeps the best of them. A callback.

    Scores hang on steps, and on the clock only where it decides how many there are (`groundup.train.Pace`); they are
    saved with the progress: a run that was cut off keeps and ends as one that was not.

    Args:
        progress: of the run; it is told when to end.
        score: of the weights as they are, less is better; the same on every rank.
        checkpoints: a directory for the best state alone.
        times: how often to score, the end included.
        patience: end the run after so many scores in a row that are no better than the best; None: never.
        say: tells the user.
    """

    def __init__(
        self,
        progress: Progress,
        score: Callable[[], float],
        checkpoints: Checkpoints,
        *,
        times: int,
        patience: int | None,
        say: Callable[[str], None],
    ) -> None:
        self._progress = progress
        self._score = score
        self._checkpoints = checkpoints
        self._parts = Parts(times)
        self._patience = patience
        self._say = say

    def after_step(self, report: StepReport) -> None:
        if self._progress.step != report.step:  # the guard has gone back, and these are the weights of that step
            self._forget_what_led_astray()
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
            self._say(f"Step {report.step:,}: {since} scores in a row are no better than the best: training ends here.")

    def _forget_what_led_astray(self) -> None:
        """Scores after the step that the run has gone back to cost no patience; the best stays, as its weights do."""
        scores = self._progress.scores
        best = min(scores, key=lambda pair: pair[1], default=None)
        scores[:] = [pair for pair in scores if pair[0] <= self._progress.step or pair == best]

    def take_best(self) -> tuple[int, float]:
        """Put the best weights back; returns the step that they are of, and their score."""
        step = self._checkpoints.restore().step
        # A run that went back may have scored a step twice.
        return step, min(score for scored, score in self._progress.scores if scored == step)
