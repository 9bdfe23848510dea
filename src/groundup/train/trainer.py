"""The Trainer: runs the training loop with logs, checkpoints, evaluation and loss spike handling."""

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
from groundup.kernels import Machine, eager_mode, measure_machine
from groundup.optim import Optimizer, OptimizerConfig, WarmupStableDecay
from groundup.train.callbacks import AtFractions, EverySeconds, MetricsLog, ShowProgress, Speed, logs_in, require_logs
from groundup.train.checkpoints import Checkpoints
from groundup.train.fit import Callback, Progress, StepReport, diverged, fit, steps_per_second
from groundup.train.guard import SpikeGuard
from groundup.train.keep_best import KeepBest
from groundup.train.learning_rates import language_model_rates
from groundup.train.memory_probe import find_max_rows
from groundup.train.objectives import Objective
from groundup.train.planner import Plan, micro_batches_per_rank
from groundup.train.prefetch import Prefetch
from groundup.train.run import CHECKPOINTS, TrainingRun
from groundup.train.settings import TrainingSettings
from groundup.train.step_cost import measure_steps
from groundup.train.time_limit import TimeLimit
from groundup.train.trackers import open_tracker

BatchT = TypeVar("BatchT")

NUM_SELECTION_SCORES = 20  # validation scores per run that selects its best checkpoint


@dataclass(frozen=True, slots=True)
class TrainingSteps:
    """Steps of a run.

    Attributes:
        schedule: Number of steps, warmup and decay.
        optimizer: Learning rates; None: the default ones of pretraining with the settings of the Trainer.
        grad_accum_steps: Micro-batches per step and rank.
        total_tokens: Tokens of the run as counted by the objective's normalizer; None: unknown.
        unit: What the normalizer counts, in the plural.
        flops_per_step: FLOPs of all ranks; None: unknown, and no MFU is reported.
        seconds: Wall time of the run at which training ends. The number of steps is then adjusted during the run, see
            `groundup.train.TimeLimit`. None: all steps are taken.
        max_steps: Maximum number of steps of such a run.
        plan_digest: Fingerprint of everything that the result depends on. A checkpoint with another one is rejected.
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
        """Return the steps of a plan for one of several ranks.

        Args:
            plan: Plan of the run.
            ranks: Ranks of the run.
            max_epochs: Maximum number of epochs for a budget of minutes.

        Raises:
            ConfigError: The ranks cannot share a step evenly.
        """
        _, accum = micro_batches_per_rank(plan.rows, plan.micro_batch_size, ranks.size)
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
        """Fingerprint of the run, hexadecimal."""
        return self.plan_digest or hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Evaluation during training, e.g. validation scores and a sample.

    Attributes:
        show: Called with the report of the last step and the progress bar that shows the scores.
        times: Number of evaluations, at equal parts of the run, without the end.
    """

    show: Callable[[StepReport, ProgressBar], None]
    times: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection of the best checkpoint of a run by a validation score.

    Attributes:
        score: Returns the score of the current weights, lower is better.
        metric: "loss", or the name of a metric from 0 to 1 whose score is 1 minus the metric.
        patience: Number of scores in a row without a new best after which training stops; None: never.
    """

    score: Callable[[], float]
    metric: str = "loss"
    patience: int | None = None


class Trainer(Generic[ModelT, BatchT]):
    """Train a model on an objective.

    The Trainer places the model on the machine and its ranks, fits micro-batches into memory, takes the steps, logs
    them, writes and restores checkpoints, skips loss spikes, evaluates during training and keeps the best checkpoint.
    An interrupted run ends with the same weights as an uninterrupted one.

    Example:
        >>> with training_run(Path("runs/mine")) as run:
        ...     trainer = Trainer(model, NextToken(), TrainingSettings(), run)
        ...     trainer.train(loader.batch, TrainingSteps(WarmupStableDecay(200, 10, 100)))
        ...     save_model(run.directory, trainer.gathered(), bos_id=0, eos_id=0)

    Args:
        model: Model to train; parameters with `requires_grad` are trained.
        objective: Loss to minimize.
        settings: Precision, ranks, checkpoints and logs.
        run: Directory and ranks, from `training_run`.
        machine: Machine to train on; None: measure it.
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
        """The unwrapped model. With FSDP its parameters are sharded; call its submodules inside `readable` only."""
        return self._parallel.model

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Allow calls of the model's submodules in this block, on every rank."""
        with self._parallel.readable():
            yield

    def gathered(self) -> ModelT:
        """Return the model with all weights. Every rank must call this; only the first may use the result."""
        return self._parallel.gathered()

    def max_rows(self, batch_of: Callable[[int], BatchT], at_most: int) -> int:
        """Return the maximum number of rows of a micro-batch that fits into memory, measured by passes.

        Args:
            batch_of: Returns a batch of a number of rows.
            at_most: Upper limit of the result.

        Raises:
            ResourceError: A single row does not fit.
        """
        with eager_mode():
            return find_max_rows(
                self._parallel.probe_module,
                self.objective,
                batch_of,
                max_rows=at_most,
                device=self.machine.device,
                state_bytes=self._parallel.optimizer_bytes,
                ranks=self.run.ranks,
            )

    def fit_micro_batches(self, plan: Plan, batch_of: Callable[[int], BatchT]) -> Plan:
        """Fit the micro-batches of a new plan into memory and save the plan. The rows per step do not change.

        A GPU also gets larger micro-batches, which are faster.

        Args:
            plan: Plan of the run.
            batch_of: Returns a batch of a number of rows.

        Raises:
            ConfigError: The ranks cannot share a step evenly.
            ResourceError: A single row does not fit.
        """
        ranks = self.run.ranks
        micro_batches_per_rank(plan.rows, plan.rows, ranks.size)  # fails before anything is computed
        micro = self.max_rows(batch_of, plan.rows if self.machine.device == "cuda" else plan.micro_batch_size)
        if micro != plan.micro_batch_size:
            micro, accum = micro_batches_per_rank(plan.rows, micro, 1)
            plan = replace(plan, micro_batch_size=micro, grad_accum_steps=accum)
        self.run.save_plan(machine=self.machine.to_json(), plan=plan.to_json())
        return plan

    def steps_per_second(self, batches: Callable[[int], BatchT], optimizer: OptimizerConfig) -> float:
        """Return the speed of training steps of one micro-batch each. Changes the weights."""
        return steps_per_second(
            self._parallel.forward_module,
            self.objective,
            batches,
            self._parallel.optimizer(optimizer),
            ranks=self.run.ranks,
        )

    def estimate(self, steps: TrainingSteps, largest: BatchT, typical: BatchT, *, memory: int) -> str:
        """Return a sentence with the estimated time and memory of a run, from two or three steps at learning rate 0.

        Args:
            steps: Steps of the run.
            largest: Micro-batch with the highest memory use.
            typical: Micro-batch with the mean time.
            memory: Estimated bytes, for systems that do not report memory use.
        """
        found = measure_steps(
            self._parallel.forward_module,
            self.objective,
            largest,
            typical,
            self._optimizer(steps),
            grad_accum_steps=steps.grad_accum_steps,
            device=self.machine.device,
            ranks=self.run.ranks,
        )
        seconds = steps.schedule.total_steps * found.seconds
        return estimate_sentence(seconds, found.bytes if found.bytes > 0 else memory, "from measured steps")

    def train(
        self,
        batches: Callable[[int], BatchT],
        steps: TrainingSteps,
        *,
        evaluation: Evaluation | None = None,
        selection: Selection | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Progress:
        """Take the remaining steps. Write `metrics.jsonl` and `checkpoints/` in the directory of the run.

        Args:
            batches: Returns this rank's micro-batch of a 0-based index, see `groundup.train.fit`.
            steps: Steps of the run.
            evaluation: Evaluation during training.
            selection: Selection of the best checkpoint; None: keep the last one.
            callbacks: Called after the log and before the checkpoint of a step.

        Returns:
            Progress at the end of the run.

        Raises:
            ConfigError: An experiment tracker is not installed.
            FormatError: The checkpoints belong to another plan.
            TrainingError: Training diverged.
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
                self._parallel.forward_module,
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
            raise diverged(f"the weights are not finite at the last step, {self.progress.step:,}")
        return self.progress

    def facts(self) -> dict[str, Any]:
        """Return the results of the training for the artifact, as JSON values."""
        return {
            "steps": self.progress.step,
            "tokens_seen": self.progress.tokens_seen,
            "machine": self.machine.to_json(),
        }

    def _optimizer(self, steps: TrainingSteps) -> Optimizer | ShardedOptimizer:
        return self._parallel.optimizer(steps.optimizer or language_model_rates(self.settings))

    def _seed(self, digest: str) -> None:
        """Seed dropout with the plan, because a resumed run skips the random numbers drawn before step 1."""
        seed = int(digest[:12], 16)
        torch.manual_seed(seed)
        if self.machine.device == "cuda":
            torch.cuda.manual_seed(seed + self.run.ranks.rank)  # other dropout masks on each rank

    def _checkpoints(self, name: str, optimizer: Optimizer | ShardedOptimizer, digest: str) -> Checkpoints:
        return Checkpoints(
            self.run.directory / CHECKPOINTS / name,
            self.model,
            optimizer,
            plan_digest=digest,
            ranks=self.run.ranks,
            warn=self.run.console.warn,
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
        """Print at which step a resumed run continues, and check its logs."""
        if self.progress.step:
            self.run.console.note(f"Resuming at step {self.progress.step:,} of {self._total_steps(steps):,}.")
        if self.run.ranks.first:
            require_logs(self.run.directory, self.progress.logs, self.run.console.warn)

    def _guard(self, good: Checkpoints) -> SpikeGuard:
        progress = self.progress
        # A run that resumed from an earlier step may have a good checkpoint of a later one.
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
                except FormatError as error:  # the guard handles weights that are not finite
                    self.run.console.warn(f"Step {report.step:,}: evaluation skipped. {error.value}.")

        return evaluate

    def _keep_best(self, selection: Selection, best: Checkpoints) -> KeepBest:
        def score() -> float:
            with self.readable():
                try:
                    value = selection.score()
                except FormatError:
                    value = math.inf
            shared: float = self.run.ranks.broadcast_object(value)
            return shared

        return KeepBest(
            self.progress,
            score,
            best,
            times=NUM_SELECTION_SCORES,
            patience=selection.patience,
            log=self.run.console.note,
        )

    def _restore_best(self, keep: KeepBest, metric: str) -> None:
        step, score = keep.restore_best()
        value = score if metric == "loss" else 1 - score
        self.run.console.note(f"Restored the best checkpoint, of step {step:,}: validation {metric} {value:.4f}.")

    def _save(self, checkpoints: Checkpoints) -> None:
        if self.run.ranks.first:
            self.progress.logs = logs_in(self.run.directory)
        checkpoints.save(self.progress)
        if self.run.ranks.first:
            self.run.work.save_time()

    def _timers(self, latest: Checkpoints, steps: TrainingSteps) -> list[Callback]:
        """Return callbacks that depend on the clock: checkpoints, and the number of steps for a budget of minutes."""
        work, ranks, progress = self.run.work, self.run.ranks, self.progress
        save = EverySeconds(
            self.settings.checkpoint_seconds, lambda _: self._save(latest), lambda: progress.stopped, ranks
        )
        if steps.seconds is None:
            return [save]
        return [save, TimeLimit(progress, steps.seconds, lambda: work.seconds, max_steps=steps.max_steps, ranks=ranks)]


def measured_machine(
    settings: TrainingSettings, run: TrainingRun, *, native: bool = True, compile: bool = True, fp8: bool = False
) -> Machine:
    """Measure the machine on the first rank and broadcast the result; see `groundup.kernels.measure_machine`."""
    here = None
    if run.ranks.first:
        measured = measure_machine(
            threads=settings.threads, native=native, compile=compile, fp8=fp8, dtype=settings.dtype
        )
        if compile and not (measured.native or measured.compile):
            run.console.warn("No working C++ compiler: training runs uncompiled, at less than half the speed.")
        here = measured.to_json()
    return Machine.from_json(run.ranks.broadcast_object(here))


def estimate_sentence(seconds: float, memory: int, how: str) -> str:
    """Return a sentence with the estimated time and memory of a run.

    Args:
        seconds: Time of the training.
        memory: Memory in bytes.
        how: Basis of the estimate.
    """
    return f"Estimate {how}: training time {format_duration(seconds)}, memory {format_count(memory, 'bytes')}."
