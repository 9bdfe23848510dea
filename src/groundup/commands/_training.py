"""What stages that train have in common: ranks that begin together, logs, looks, checkpoints, and what is done in
trouble."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from groundup.commands._plans import require_current_plan
from groundup.core.artifact import Work, begin
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import FormatError
from groundup.distributed.ranks import Ranks, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from groundup.core.console import Progress as ProgressBar
    from groundup.distributed import ParallelModel, ShardedOptimizer
    from groundup.distributed.parallel_model import ModelT
    from groundup.kernels import Machine
    from groundup.optim import Optimizer, WarmupStableDecay
    from groundup.train import Callback, Progress, StepReport
    from groundup.train.objectives import Objective

BatchT = TypeVar("BatchT")

TrackerName = Literal["tensorboard", "wandb", "trackio"]

_SCORES = 20  # times that the weights are scored in a run that keeps the best of them

# Settings that change where and how a run is computed and watched, not what it computes.
NO_PART_OF_THE_RESULT = {"out", "checkpoint_seconds", "parallel", "log_to", "allow_high_learning_rate"}


class ParallelConfig(Config):
    """How the ranks that `torchrun` starts share the work; a step has the same batch for any number of them."""

    mode: Literal["ddp", "fsdp"] | None = setting(
        None, help="ddp: each rank holds the whole model; fsdp: its share; default: ddp where that easily fits"
    )
    activation_checkpointing: bool = setting(False, help="keep fewer activations, at a third more computation")


@contextmanager
def begun(
    directory: Path, stage: str, keys: Mapping[str, Any], inputs: Mapping[str, str], console: Console
) -> Iterator[tuple[Work, Ranks, Console]]:
    """`groundup.core.artifact.begin` for all ranks: the first holds the directory, and it alone writes and speaks.

    The others leave the block when the first has done so.
    """
    with ExitStack() as stack:
        ranks = stack.enter_context(joined())
        if ranks.first:
            require_current_plan(directory)
            work = begin(directory, stage, keys, inputs, console=console)
            stack.callback(work.let_go)
            ranks.told([work.fingerprint, work.state, work.seconds, str(work.directory)])
        else:
            console = Console(quiet=True, stream=stack.enter_context(Path(os.devnull).open("w")))
            heard: list[Any] = ranks.told([])
            fingerprint, state, seconds, place = heard
            work = Work(Path(place), stage, dict(keys), dict(inputs), fingerprint, state, seconds)
        yield work, ranks, console
        ranks.told("done")


def memory_of_a_rank(machine: Machine, config: ParallelConfig, ranks: Ranks) -> int | None:
    """Memory for a model as if one rank trained it: a GPU's for each rank, a machine's for all of them."""
    from groundup.kernels import memory_bytes

    memory = memory_bytes(machine.device)
    if memory is None:
        return None
    whole = memory * (ranks.size if machine.device == "cuda" else 1)
    return whole if config.mode == "fsdp" else whole // ranks.size


def parallelize(model: ModelT, machine: Machine, config: ParallelConfig, ranks: Ranks) -> ParallelModel[ModelT]:
    """Put a model on the machine, and on all ranks of it."""
    from groundup.distributed import ParallelModel, checkpoint_activations, choose_mode
    from groundup.kernels import place

    if config.activation_checkpointing:
        checkpoint_activations(model)
    place(model, machine)
    state_bytes = 16 * sum(parameter.numel() for parameter in model.parameters())
    return ParallelModel(
        model, choose_mode(config.mode, ranks, state_bytes, memory_of_a_rank(machine, config, ranks)), ranks
    )


def train(
    work: Work,
    label: str,
    spread: ParallelModel[ModelT],
    objective: Objective[BatchT],
    batches: Callable[[int], BatchT],
    optimizer: Optimizer | ShardedOptimizer,
    schedule: WarmupStableDecay,
    *,
    plan_digest: str,
    total_tokens: int,
    machine: Machine,
    ranks: Ranks,
    console: Console,
    unit: str = "tokens",
    grad_accum_steps: int = 1,
    flops_per_step: float | None = None,
    look: Callable[[StepReport, ProgressBar], None] | None = None,
    looks: int = 0,
    checkpoint_seconds: float = 30.0,
    skip_spikes: bool = True,
    end: float | None = None,
    most_steps: int = 0,
    log_to: Sequence[TrackerName] = (),
    callbacks: Sequence[Callback] = (),
    score: Callable[[], float] | None = None,
    scored_by: str = "loss",
    patience: int | None = None,
) -> Progress:
    """Take the steps that are not done yet; leaves `metrics.jsonl` and `checkpoints/` in the stage's directory.

    Args:
        work: the stage's; its time is kept with each checkpoint.
        label: what the bar is called, e.g. "pretraining".
        batches: this rank's micro-batch of a 0-based index; see `groundup.train.fit`, as for the other arguments.
        plan_digest: identity of all that the result depends on; the checkpoint of another plan is refused.
        total_tokens: of the whole run, as the objective's normalizer counts them.
        unit: what it counts, in the plural.
        flops_per_step: of all ranks together; None: not known.
        look: called `looks` times on the way, e.g. to score held-out data, with the bar to show its score on.
        checkpoint_seconds: between checkpoints at least, see `groundup.train.EverySeconds`; there is one at the end in
            any case.
        skip_spikes: skip steps whose loss is far above those before; see `groundup.train.SpikeGuard`.
        end: what `work.seconds` is when training should be over: it then has as many steps as fit, see
            `groundup.train.Pace`.
        most_steps: of such a run.
        log_to: programs that get the metrics, too.
        callbacks: called after the log and before the checkpoint of a step.
        score: of the weights on held-out data, less is better; asked 20 times on the way. The best weights are put back
            at the end.
        scored_by: what the score is: "loss", or the name of a figure of 0 to 1, of which it is what is missing to 1.
        patience: end the run after so many scores that are no better than the best.

    Raises:
        ConfigError: a program to log to is not installed.
        FormatError: the checkpoints are another plan's.
        TrainingError: training has diverged.
    """
    import torch

    from groundup.train import (
        AtFractions,
        Checkpoints,
        EverySeconds,
        KeepBest,
        MetricsLog,
        Pace,
        Prefetch,
        ShowProgress,
        Speed,
        SpikeGuard,
        diverged,
        logs_in,
        open_tracker,
        require_logs,
    )
    from groundup.train.fit import fit

    # What dropout draws must not hang on what was drawn before step 1, which a resumed run does not do again.
    seed = int(plan_digest[:12], 16)
    torch.manual_seed(seed)
    if machine.device == "cuda":
        torch.cuda.manual_seed(seed + ranks.rank)  # ranks read other texts, and leave out other parts of them
    saved = work.directory / "checkpoints"
    checkpoints, good, best = (
        Checkpoints(directory, spread.model, optimizer, plan_digest=plan_digest, ranks=ranks, say=console.warn)
        for directory in (saved, saved / "good", saved / "best")
    )
    progress = checkpoints.restore()

    def total_steps() -> int:
        return progress.total_steps or schedule.total_steps

    def last_batch() -> int:
        return (progress.batches + total_steps() - progress.step) * grad_accum_steps - 1

    if progress.step:
        console.note(f"Going on from step {progress.step:,} of {total_steps():,}.")
    speed = Speed(flops_per_step, machine.peak_flops and ranks.size * machine.peak_flops)
    if ranks.first:
        require_logs(work.directory, progress.logs, console.warn)

    def go_back() -> Progress:
        # A run that resumed from an earlier step may have left a good state of a later one.
        return good.restore(at_most=progress.step)

    guard = SpikeGuard(progress, good.save, go_back, console.warn, spikes=skip_spikes)

    def looked(report: StepReport) -> None:
        if look is None or report.skipped:
            return
        with spread.readable():
            try:
                look(report, bar)
            except FormatError as error:  # weights gone bad are the guard's to deal with
                console.warn(f"Step {report.step:,}: no look at the model. {error.value}.")

    def scored() -> float:
        assert score is not None
        with spread.readable():
            try:
                value = score()
            except FormatError:
                value = math.inf
        told: float = ranks.told(value)
        return told

    keep = KeepBest(progress, scored, best, times=_SCORES, patience=patience, say=console.note)

    def save(report: StepReport) -> None:
        if ranks.first:
            progress.logs = logs_in(work.directory)
        checkpoints.save(progress)
        if ranks.first:
            work.keep_time()

    pace = [Pace(progress, end, lambda: work.seconds, most=most_steps, ranks=ranks)] if end is not None else []
    with ExitStack() as stack:
        made_ahead = stack.enter_context(Prefetch(batches, ahead=grad_accum_steps + 1, last=last_batch))
        bar = stack.enter_context(
            console.progress(label, total_tokens, unit, done=progress.tokens_seen, curve="loss"),
        )
        logs: list[Callback] = []
        if ranks.first:
            logs.append(MetricsLog(work.directory / "metrics.jsonl", kept_rows=progress.batches, speed=speed))
            for name in log_to:
                tracker = open_tracker(name, work.directory, speed, from_row=progress.batches, facts=work.config)
                stack.callback(tracker.close)
                logs.append(tracker)
        fit(
            spread.called,
            objective,
            made_ahead,
            optimizer,
            schedule,
            progress=progress,
            grad_accum_steps=grad_accum_steps,
            callbacks=[
                *logs,
                ShowProgress(bar, speed),
                AtFractions(looks, looked),
                *callbacks,
                guard,
                *([keep] if score is not None else []),
                EverySeconds(checkpoint_seconds, save, lambda: progress.stopped, ranks),
                *pace,
            ],
            guard=guard,
            ranks=ranks,
        )
    if score is not None:
        step, told = keep.take_best()
        figure = told if scored_by == "loss" else 1 - told
        console.note(f"The weights of step {step:,} are kept: {scored_by} {figure:.4f} on held-out data, the best.")
    if not spread.is_finite():  # it ended before there was trouble enough for the guard to go back
        raise diverged(f"step {progress.step:,}, the last: weights that are no finite numbers")
    return progress


def base_identity(path: Path) -> str:
    """Identity of the language model that tuning starts from: what `path`, a model or a run, means."""
    from groundup.hub.resolve import model_identity, resolve_model

    return model_identity(resolve_model(path))


def drop_checkpoints(out: Path) -> None:
    """Delete the checkpoints of a finished stage.

    After the artifact, never before: a process killed in between must find either of the two. The next run of a
    finished stage clears what is then left.
    """
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
