"""Early stopping restores the best checkpoint, also in an interrupted run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.optim import Optimizer, OptimizerConfig
from groundup.train import Checkpoints, KeepBest, Progress, StepReport

STEPS, TIMES = 40, 20
SCORES = [5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 2.0] + [
    2.5
] * 13  # the second-best score comes before three that are not better


class Model(nn.Module):
    """The only weight is the number of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))


class Run:
    def __init__(self, directory: Path, progress: Progress | None = None, *, patience: int | None = None) -> None:
        self.model = Model()
        self.progress = progress or Progress()
        self.said: list[str] = []
        optimizer = Optimizer(self.model, OptimizerConfig())
        checkpoints = Checkpoints(directory, self.model, optimizer, plan_digest="x")
        self.keep = KeepBest(
            self.progress, self.score, checkpoints, times=TIMES, patience=patience, log=self.said.append
        )

    def score(self) -> float:
        return SCORES[self.progress.step * TIMES // STEPS - 1]

    def go_on(self, until: int = STEPS) -> None:
        while self.progress.step < until and not self.progress.stopped:
            self.progress.step += 1
            nn.init.constant_(self.model.weight, self.progress.step)
            done = self.progress.step
            self.keep.after_step(StepReport(done, STEPS, 1, done, 1.0, 1.0, 0.1))


def test_the_best_weights_are_restored(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.go_on()
    assert len(run.progress.scores) == TIMES and not run.progress.stopped
    assert run.keep.restore_best() == (14, 2.0)
    assert run.model.weight.unique().tolist() == [14]


def test_early_stopping(tmp_path: Path) -> None:
    """With patience 3 the run stops after three scores above the best, before the better one that would follow."""
    run = Run(tmp_path, patience=3)
    run.go_on()
    assert run.progress.stopped and run.progress.step == 12
    assert run.keep.restore_best() == (6, 3.0)
    assert "no improvement in" in run.said[0]


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    """If scores were lost at a resume, the patience would start again."""
    first = Run(tmp_path, patience=3)
    first.go_on(9)
    saved = Progress.from_json(json.loads(json.dumps(asdict(first.progress))))
    again = Run(tmp_path, saved, patience=3)
    again.go_on()
    assert (again.progress.step, again.keep.restore_best()) == (12, (6, 3.0))


@pytest.mark.parametrize(("good", "best"), [(4, (14, 2.0)), (6, (14, 2.0)), (14, (14, 2.0))])
def test_a_run_after_a_rollback_ends_with_its_best_weights(tmp_path: Path, good: int, best: tuple[int, float]) -> None:
    """The guard resets the step before the weights are scored.

    The weights of step 4 were once recorded as step 16, and the end looked for a score of step 4.
    """
    run = Run(tmp_path, patience=5)
    run.go_on(15)
    nn.init.constant_(run.model.weight, good)
    run.progress.step = good  # the guard is called first
    run.keep.after_step(StepReport(16, STEPS, 1, 16, 1.0, 1.0, 0.1))
    assert [step for step, _ in run.progress.scores] == sorted({*range(2, good + 1, 2), 14})
    run.go_on()
    assert run.progress.stopped  # after five scores without a new best since the rollback
    assert run.keep.restore_best() == best
    assert run.model.weight.unique().tolist() == [best[0]]


@pytest.mark.parametrize("steps", [1, 7])
def test_short_runs_are_scored_at_every_step(tmp_path: Path, steps: int) -> None:
    run = Run(tmp_path)
    run.score = lambda: 1.0  # type: ignore[method-assign]
    run.keep = KeepBest(run.progress, run.score, run.keep._checkpoints, times=TIMES, patience=None, log=print)
    for step in range(1, steps + 1):
        run.progress.step = step
        run.keep.after_step(StepReport(step, steps, 1, step, 1.0, 1.0, 0.1))
    assert [step for step, _ in run.progress.scores] == list(range(1, steps + 1))
