"""A run with a budget of minutes ends on time on a machine of any speed, with a decayed learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise

import pytest

from groundup.optim import WarmupStableDecay
from groundup.train import AtFractions, Progress, StepReport, TimeLimit

PLANNED = WarmupStableDecay(1000, warmup_steps=20, decay_steps=600)
END = 1000.0  # a second per step at the planned speed


class Run:
    """Fake steps with given durations, without a model."""

    def __init__(
        self, progress: Progress, spent: float = 0.0, *, max_steps: int = 10_000, evaluation_seconds: float = 0.0
    ) -> None:
        self.progress = progress
        self.now = spent
        self.rates: list[float] = []
        self.looks: list[int] = []
        self.callbacks = [
            AtFractions(8, self.look),
            TimeLimit(progress, END, lambda: self.now, max_steps=max_steps),
        ]
        self.evaluation_seconds = evaluation_seconds

    def look(self, report: StepReport) -> None:
        self.looks.append(report.step)
        self.now += self.evaluation_seconds

    def go_on(self, seconds: Callable[[float], float], until: float = float("inf")) -> None:
        """Args:
        seconds: of a step that begins at this time.
        """
        progress = self.progress
        while progress.step < (total := progress.total_steps or PLANNED.total_steps) and self.now < until:
            taken = seconds(self.now)
            self.now += taken
            self.rates.append(PLANNED.with_total_steps(total)(progress.step))
            progress.step += 1
            progress.batches += 1
            for callback in self.callbacks:
                callback.after_step(StepReport(progress.step, total, 1, progress.step, 1.0, 1.0, taken))


@pytest.mark.parametrize(
    "seconds",
    [
        lambda _: 1.25,
        lambda _: 0.6,
        lambda now: 3.0 if 300 < now < 500 else 1.0,
        lambda now: 1.0 if now < 500 else 0.4,
        lambda now: 40.0 if now == 0 else 1.0,  # compilation
        lambda now: 1.0 + 0.7 * (int(now) % 7 < 2),
    ],
)
def test_a_run_ends_on_time(seconds: Callable[[float], float]) -> None:
    run = Run(Progress())
    run.go_on(seconds)
    assert END - 15 < run.now <= END + 5
    assert run.rates[-1] < 0.01, "the learning rate has come down"
    assert max(run.rates) == 1
    assert len(run.looks) == 7 and run.looks == sorted(set(run.looks)), "each part of the run is looked at once"


def test_a_slow_evaluation_does_not_shorten_the_run() -> None:
    """Its time once counted as time of the last steps, so that three evaluations followed each other."""
    run = Run(Progress(), evaluation_seconds=40.0)
    run.go_on(lambda _: 2.0)
    assert END - 15 < run.now <= END + 45
    apart = [after - before for before, after in pairwise(run.looks)]
    assert len(run.looks) == 7 and min(apart) > 0.7 * max(apart)
    assert all(before - after < 0.1 for before, after in pairwise(run.rates)), "the learning rate does not jump"


def test_an_interrupted_run_keeps_its_estimate() -> None:
    """The number of steps is restored, and the time of the earlier process counts."""
    run = Run(Progress())
    run.go_on(lambda _: 2.0, until=600.0)
    kept = Progress.from_json(asdict(run.progress))
    assert kept.total_steps is not None and 450 < kept.total_steps < 550
    again = Run(kept, spent=620.0)
    again.go_on(lambda _: 2.0)
    assert END - 15 < again.now <= END + 5


def test_the_number_of_steps_is_limited() -> None:
    run = Run(Progress(), max_steps=1200)
    run.go_on(lambda _: 0.1)
    assert run.progress.step == 1200


def test_one_more_step_after_the_time_limit() -> None:
    """Its report marks it as the last one, so a checkpoint is saved."""
    run = Run(Progress(), spent=2 * END)
    run.go_on(lambda _: 1.0)
    assert run.progress.step < 40 and run.progress.step == run.progress.total_steps


def test_a_schedule_of_another_length_has_the_same_warmup() -> None:
    shorter = PLANNED.with_total_steps(500)
    assert shorter == WarmupStableDecay(500, warmup_steps=20, decay_steps=300)
    assert PLANNED.with_total_steps(1000) is PLANNED
