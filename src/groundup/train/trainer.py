"""The Trainer: everything that a training run needs around the loop of `groundup.train.fit`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import torch

from groundup.core.console import ProgressBar as ProgressBar
from groundup.core.console import format_count, format_duration
from groundup.core.errors import FormatError
from groundup.distributed import ShardedOptimizer
from groundup.distributed.parallel_model import ModelT, parallelize
from groundup.distributed.ranks import Ranks
from groundup.kernels import Machine, eagerly, measure_machine
from groundup.optim import Optimizer, OptimizerConfig, WarmupStableDecay
from groundup.train.best import KeepBest
from groundup.train.callbacks import AtFractions, EverySeconds, MetricsLog, ShowProgress, Speed, logs_in, require_logs
from groundup.train.checkpoints import Checkpoints
from groundup.train.fit import Callback, Progress, StepReport, diverged, fit, steps_per_second
from groundup.train.guard import SpikeGuard
from groundup.train.learning_rates import language_model_rates
from groundup.train.objectives import Objective
from groundup.train.pace import Pace
from groundup.train.planner import Plan, share
from groundup.train.prefetch import Prefetch
from groundup.train.probe import fitting_rows
from groundup.train.rehearsal import rehearse
from groundup.train.run import CHECKPOINTS, TrainingRun
from groundup.train.settings import TrainingSettings
from groundup.train.trackers import open_tracker

BatchT = TypeVar("BatchT")

NUM_SELECTION_SCORES = 20  # validation scores in a run that keeps its best weights


@dataclass(frozen=True, slots=True)
class TrainingSteps:
    """The steps of a run.

    Attributes:
        schedule: Number of steps, warmup and decay.
        optimizer: Learning rates; None: the default ones of pretraining with the settings of the Trainer.
        grad_accum_steps: Micro-batches that a rank takes in a step.
        total_tokens: Tokens of the whole run as the objective's normalizer counts them; None: unknown.
        unit: What the normalizer counts, in the plural.
        flops_per_step: FLOPs of all ranks together; None: unknown, and no MFU is reported.
        seconds: Wall time of the run at which training ends. The number of steps is then adjusted on the way, see
            `groundup.train.Pace`; None: all steps are taken.
        max_steps: Maximum number of steps of such a run.
        plan_digest: Identity of everything that the result depends on. A checkpoint with another one is refused.
            Default: a digest of the fields above.
    """

    schedule: WarmupStableDecay
    optimizer: OptimizerConfig | None = None
    grad_accum_steps: int = 1
    total_tokens: int | None = None
    unit: str = "tokens"
    flops_per_step: float | None = None
    seconds: float | None = None
    max_steps: int = 0
    plan_digest: str | None = None

    @classmethod
    def of(cls, plan: Plan, ranks: Ranks, *, max_epochs: float) -> Self:
        """Return the steps of a plan as one of several ranks takes them.

        Raises:
            ConfigError: The ranks cannot share a step evenly.
        """
        _, accum = share(plan.rows, plan.micro_batch_size, ranks.size)
        return cls(
            WarmupStableDecay(plan.total_steps, plan.warmup_steps, plan.decay_steps),
            plan.optimizer,
            grad_accum_steps=accum,
            total_tokens=plan.total_tokens,
            flops_per_step=float(plan.global_batch_tokens * plan.flops_per_token),
            seconds=plan.seconds,
            max_steps=plan.max_steps_for(max_epochs),
            plan_digest=plan.digest,
        )

    @property
    def digest(self) -> str:
        """Hexadecimal identity of the run."""
        return self.plan_digest or hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation on the way, such as scores of held-out data and a sample.

    Attributes:
        show: Called with the report of the last step and the progress bar to show scores on.
        times: How often, at equal parts of the run; the end is not included.
    """

    show: Callable[[StepReport, ProgressBar], None]
    times: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection of the best weights of a run by a validation score.

    Attributes:
        score: Score of the current weights, less is better.
        metric: "loss", or the name of a metric from 0 to 1 of which the score is the rest to 1.
        patience: Number of scores in a row without a new best after which training ends; None: never.
    """

    score: Callable[[], float]
    metric: str = "loss"
    patience: int | None = None


class Trainer(Generic[ModelT, BatchT]):
    """Trains a model on an objective.

    It places the model on the machine and its ranks, fits micro-batches into memory, takes the steps, logs them, writes
    and restores checkpoints, skips loss spikes, evaluates on the way and keeps the best weights. A run that was
    interrupted ends with the same weights as one that was not.

    Example:
        >>> with training_run(Path("runs/mine")) as run:
        ...     trainer = Trainer(model, NextToken(), TrainingSettings(), run)
        ...     trainer.train(loader.batch, TrainingSteps(WarmupStableDecay(200, 10, 100)))
        ...     save_model(run.directory, trainer.gathered(), bos_id=0, eos_id=0)

    Args:
        model: Its trained parameters are those with `requires_grad`.
        objective: The loss.
        settings: Precision, ranks, checkpoints and logs.
        run: The directory and the ranks, from `training_run`.
        machine: How the machine computes; None: it is measured.
        label: Title of the progress bar.
    """

    def __init__(
        self,
        model: ModelT,
        objective: Objective[BatchT],
        settings: TrainingSettings,
        run: TrainingRun,
        *,
        machine: Machine | None = None,
        label: str = "training",
    ) -> None:
        self.objective = objective
        self.settings = settings
        self.run = run
        self.machine = machine or measured_machine(settings, run)
        self.label = label
        self.progress = Progress()
        self._parallel = parallelize(
            model,
            self.machine,
            run.ranks,
            mode=settings.parallel.mode,
            activation_checkpointing=settings.parallel.activation_checkpointing,
        )

    @property
    def model(self) -> ModelT:
        """The model itself. With FSDP its parameters are sharded; call its parts inside `readable` only."""
        return self._parallel.model

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Allow parts of the model to be called in this block, on every rank."""
        with self._parallel.readable():
            yield

    def gathered(self) -> ModelT:
        """Return the model with all of its weights, to be saved. Every rank calls it; only the first may use it."""
        return self._parallel.gathered()

    def max_rows(self, batch_of: Callable[[int], BatchT], at_most: int) -> int:
        """Return the maximum number of rows of a micro-batch that fits into memory, found by real passes.

        Args:
            batch_of: Makes a batch of a number of rows.

        Raises:
            ResourceError: Not even one row fits.
        """
        with eagerly():
            return fitting_rows(
                self._parallel.probed,
                self.objective,
                batch_of,
                most=at_most,
                device=self.machine.device,
                state_bytes=self._parallel.optimizer_bytes,
                ranks=self.run.ranks,
            )

    def settle(self, plan: Plan, batch_of: Callable[[int], BatchT]) -> Plan:
        """Fit the micro-batches of a new plan into memory and save the plan. The rows of a step stay the same.

        A GPU, which is faster with more rows, also gets larger micro-batches.

        Args:
            batch_of: Makes a batch of a number of rows.

        Raises:
            ConfigError: The ranks cannot share a step evenly.
            ResourceError: Not even one row fits.
        """
        ranks = self.run.ranks
        share(plan.rows, plan.rows, ranks.size)  # refused before anything is computed
        micro = self.max_rows(batch_of, plan.rows if self.machine.device == "cuda" else plan.micro_batch_size)
        if micro != plan.micro_batch_size:
            micro, accum = share(plan.rows, micro, 1)
            plan = replace(plan, micro_batch_size=micro, grad_accum_steps=accum)
        self.run.save_plan(machine=self.machine.to_json(), plan=plan.to_json())
        return plan

    def steps_per_second(self, batches: Callable[[int], BatchT], optimizer: OptimizerConfig) -> float:
        """Return the speed of real steps of one micro-batch each. Changes the weights."""
        return steps_per_second(
            self._parallel.called, self.objective, batches, self._parallel.optimizer(optimizer), ranks=self.run.ranks
        )

    def estimate(self, steps: TrainingSteps, largest: BatchT, typical: BatchT, *, memory: int) -> str:
        """Return a sentence with the estimated time and memory of a run, from two or three steps at rate 0.

        Args:
            largest: The micro-batch that takes the most memory.
            typical: A micro-batch that takes the mean time.
            memory: Estimate in bytes for systems that do not report memory use.
        """
        found = rehearse(
            self._parallel.called,
            self.objective,
            largest,
            typical,
            self._optimizer(steps),
            grad_accum_steps=steps.grad_accum_steps,
            device=self.machine.device,
            ranks=self.run.ranks,
        )
        seconds = steps.schedule.total_steps * found.seconds
        return estimated(seconds, found.bytes if found.bytes > 0 else memory, "from trial steps")

    def train(
        self,
        batches: Callable[[int], BatchT],
        steps: TrainingSteps,
        *,
        evaluation: Evaluation | None = None,
        selection: Selection | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Progress:
        """Take the steps that are not done yet. Leaves `metrics.jsonl` and `checkpoints/` in the run's directory.

        Args:
            batches: This rank's micro-batch of a 0-based index, see `groundup.train.fit`.
            callbacks: Called after the log and before the checkpoint of a step.

        Raises:
            ConfigError: A program to log to is not installed.
            FormatError: The checkpoints belong to another plan.
            TrainingError: Training has diverged.
        """
        run, make_bar = self.run, self.run.console.progress
        self._seed(steps.digest)
        optimizer = self._optimizer(steps)
        latest, good, best = (self._checkpoints(name, optimizer, steps.digest) for name in ("", "good", "best"))
        self.progress = latest.restore()
        self._resume(steps)
        guard = self._guard(good)
        keep = [self._keep_best(selection, best)] if selection else []
        tokens, done = steps.total_tokens, self.progress.tokens_seen
        with ExitStack() as stack:
            bar = stack.enter_context(make_bar(self.label, tokens, steps.unit, done=done, curve="loss"))
            logs = self._logs(stack, steps, bar)
            shown = [AtFractions(evaluation.times, self._evaluating(evaluation, bar))] if evaluation else []
            fit(
                self._parallel.called,
                self.objective,
                stack.enter_context(self._prefetched(batches, steps)),
                optimizer,
                steps.schedule,
                progress=self.progress,
                grad_accum_steps=steps.grad_accum_steps,
                callbacks=[*logs, *shown, *callbacks, guard, *keep, *self._timers(latest, steps)],
                guard=guard,
                ranks=run.ranks,
            )
        if selection:
            self._restore_best(keep[0], selection.metric)
        if not self._parallel.is_finite():  # the run ended before the guard rolled back
            raise diverged(f"step {self.progress.step:,}, the last: weights that are not finite")
        return self.progress

    def facts(self) -> dict[str, Any]:
        """Return what the artifact of the run says of its training, as JSON values."""
        return {
            "steps": self.progress.step,
            "tokens_seen": self.progress.tokens_seen,
            "machine": self.machine.to_json(),
        }

    def _optimizer(self, steps: TrainingSteps) -> Optimizer | ShardedOptimizer:
        return self._parallel.optimizer(steps.optimizer or language_model_rates(self.settings))

    def _seed(self, digest: str) -> None:
        """Seed dropout, so that it does not depend on what was drawn before step 1: a resumed run skips that."""
        seed = int(digest[:12], 16)
        torch.manual_seed(seed)
        if self.machine.device == "cuda":
            torch.cuda.manual_seed(seed + self.run.ranks.rank)  # ranks drop other units

    def _checkpoints(self, name: str, optimizer: Optimizer | ShardedOptimizer, digest: str) -> Checkpoints:
        return Checkpoints(
            self.run.directory / CHECKPOINTS / name,
            self.model,
            optimizer,
            plan_digest=digest,
            ranks=self.run.ranks,
            say=self.run.console.warn,
        )

    def _total_steps(self, steps: TrainingSteps) -> int:
        return self.progress.total_steps or steps.schedule.total_steps

    def _prefetched(self, batches: Callable[[int], BatchT], steps: TrainingSteps) -> Prefetch[BatchT]:
        accum = steps.grad_accum_steps

        def last() -> int:
            left = self._total_steps(steps) - self.progress.step
            return (self.progress.batches + left) * accum - 1

        return Prefetch(batches, ahead=accum + 1, last=last)

    def _resume(self, steps: TrainingSteps) -> None:
        """Report where a resumed run continues, and check its logs."""
        if self.progress.step:
            self.run.console.note(f"Resuming at step {self.progress.step:,} of {self._total_steps(steps):,}.")
        if self.run.ranks.first:
            require_logs(self.run.directory, self.progress.logs, self.run.console.warn)

    def _guard(self, good: Checkpoints) -> SpikeGuard:
        progress = self.progress
        # A run that resumed from an earlier step may have left a good state of a later one.
        return SpikeGuard(
            progress,
            good.save,
            lambda: good.restore(at_most=progress.step),
            self.run.console.warn,
            spikes=self.settings.skip_loss_spikes,
        )

    def _logs(self, stack: ExitStack, steps: TrainingSteps, bar: ProgressBar) -> list[Callback]:
        """Open the logs; only the first rank writes files."""
        run, rows = self.run, self.progress.batches
        speed = Speed(steps.flops_per_step, self.machine.peak_flops and run.ranks.size * self.machine.peak_flops)
        logs: list[Callback] = []
        if run.ranks.first:
            logs.append(MetricsLog(run.directory / "metrics.jsonl", kept_rows=rows, speed=speed))
            for name in self.settings.report_to:
                tracker = open_tracker(name, run.directory, speed, from_row=rows, facts=run.work.config)
                stack.callback(tracker.close)
                logs.append(tracker)
        return [*logs, ShowProgress(bar, speed)]

    def _evaluating(self, evaluation: Evaluation, bar: ProgressBar) -> Callable[[StepReport], None]:
        def evaluate(report: StepReport) -> None:
            if report.skipped:
                return
            with self.readable():
                try:
                    evaluation.show(report, bar)
                except FormatError as error:  # weights that are not finite are the guard's to handle
                    self.run.console.warn(f"Step {report.step:,}: not evaluated. {error.value}.")

        return evaluate

    def _keep_best(self, selection: Selection, best: Checkpoints) -> KeepBest:
        def score() -> float:
            with self.readable():
                try:
                    value = selection.score()
                except FormatError:
                    value = math.inf
            told: float = self.run.ranks.broadcast_object(value)
            return told

        return KeepBest(
            self.progress,
            score,
            best,
            times=NUM_SELECTION_SCORES,
            patience=selection.patience,
            say=self.run.console.note,
        )

    def _restore_best(self, keep: KeepBest, metric: str) -> None:
        step, score = keep.take_best()
        value = score if metric == "loss" else 1 - score
        self.run.console.note(f"The best weights are kept, of step {step:,}: {metric} {value:.4f} in validation.")

    def _save(self, checkpoints: Checkpoints) -> None:
        if self.run.ranks.first:
            self.progress.logs = logs_in(self.run.directory)
        checkpoints.save(self.progress)
        if self.run.ranks.first:
            self.run.work.save_time()

    def _timers(self, latest: Checkpoints, steps: TrainingSteps) -> list[Callback]:
        """Return what depends on the clock: checkpoints, and the number of steps that a budget of minutes allows."""
        work, ranks, progress = self.run.work, self.run.ranks, self.progress
        save = EverySeconds(
            self.settings.checkpoint_seconds, lambda _: self._save(latest), lambda: progress.stopped, ranks
        )
        if steps.seconds is None:
            return [save]
        return [save, Pace(progress, steps.seconds, lambda: work.seconds, most=steps.max_steps, ranks=ranks)]


def measured_machine(
    settings: TrainingSettings, run: TrainingRun, *, native: bool = True, compile: bool = True, fp8: bool = False
) -> Machine:
    """Measure the machine on the first rank, for all of them; see `groundup.kernels.measure_machine`."""
    here = None
    if run.ranks.first:
        measured = measure_machine(
            threads=settings.threads, native=native, compile=compile, fp8=fp8, dtype=settings.dtype
        )
        if compile and not (measured.native or measured.compile):
            run.console.warn("No working C++ compiler: training is not compiled and runs at less than half the speed.")
        here = measured.to_json()
    return Machine.from_json(run.ranks.broadcast_object(here))


def estimated(seconds: float, memory: int, how: str) -> str:
    """Return a sentence with the estimated time and memory of a run.

    Args:
        memory: In bytes.
        how: Where the estimate comes from.
    """
    return f"Estimated {how}: {format_duration(seconds)} of training, {format_count(memory, 'bytes')} of memory."
