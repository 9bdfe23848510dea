"""What stages that train have in common: a log of losses, a bar, looks, checkpoints that a killed run goes on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from groundup.artifact import Work
    from groundup.console import Console
    from groundup.console import Progress as ProgressBar
    from groundup.objectives import Objective
    from groundup.optim import Optimizer, WarmupStableDecay
    from groundup.train import Callback, Progress, StepReport

BatchT = TypeVar("BatchT")


def train(
    work: Work,
    label: str,
    model: nn.Module,
    objective: Objective[BatchT],
    batches: Callable[[int], BatchT],
    optimizer: Optimizer,
    schedule: WarmupStableDecay,
    *,
    plan_digest: str,
    total_tokens: int,
    console: Console,
    unit: str = "tokens",
    grad_accum_steps: int = 1,
    look: Callable[[StepReport, ProgressBar], None] | None = None,
    looks: int = 0,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[Callback] = (),
) -> Progress:
    """Take the steps that are not done yet; leaves `metrics.jsonl` and `checkpoints/` in the stage's directory.

    Args:
        work: the stage's; its time is kept with each checkpoint.
        label: what the bar is called, e.g. "pretraining".
        batches: the micro-batch of a 0-based index; see `groundup.train.fit`, as for the arguments before and after.
        plan_digest: identity of all that the result depends on; the checkpoint of another plan is refused.
        total_tokens: of the whole run, as the objective's normalizer counts them.
        unit: what it counts, in the plural.
        look: called `looks` times on the way, e.g. to score held-out data, with the bar to show its score on.
        checkpoint_seconds: time between checkpoints; there is one at the end in any case.
        callbacks: called after the log and before the checkpoint of a step.

    Raises:
        FormatError: the checkpoints are another plan's.
    """
    from groundup.train import AtFractions, Checkpoints, EverySeconds, MetricsLog, ShowProgress, fit

    checkpoints = Checkpoints(work.directory / "checkpoints", model, optimizer, plan_digest=plan_digest)
    progress = checkpoints.restore()
    if progress.step:
        console.note(f"Going on from step {progress.step:,} of {schedule.total_steps:,}.")

    def save(report: StepReport) -> None:
        checkpoints.save(report.step, report.tokens_seen)
        work.keep_time()

    with console.progress(label, total_tokens, unit, done=progress.tokens_seen, curve="loss") as bar:
        shown = [] if look is None else [AtFractions(looks, lambda report: look(report, bar))]
        fit(
            model,
            objective,
            batches,
            optimizer,
            schedule,
            progress=progress,
            grad_accum_steps=grad_accum_steps,
            callbacks=[
                MetricsLog(work.directory / "metrics.jsonl", from_step=progress.step),
                ShowProgress(bar),
                *shown,
                *callbacks,
                EverySeconds(checkpoint_seconds, save),
            ],
        )
    return progress


def base_identity(path: Path) -> str:
    """Identity of the language model that tuning starts from: what `path`, a model or a run, means."""
    from groundup.checkpoint.resolve import model_identity, resolve_model

    return model_identity(resolve_model(path))


def drop_checkpoints(out: Path) -> None:
    """Delete the checkpoints of a finished stage.

    After the artifact, never before: a process killed in between must find either of the two. The next run of a
    finished stage clears what is then left.
    """
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
