"""The Trainer, which runs the training loop with logs, checkpoints, evaluation and loss spike handling."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import torch

from groundup.core.console import ProgressBar as ProgressBar
from groundup.core.console import format_count, format_duration
from groundup.core.errors import FormatError
from groundup.core.trainings import announced_training
from groundup.distributed import ShardedOptimizer
from groundup.distributed.parallel_model import ModelT, parallelize
from groundup.distributed.ranks import Ranks
from groundup.kernels import Machine, eager_mode
from groundup.model.lora import lora_layers
from groundup.optim import Optimizer, OptimizerConfig, WarmupStableDecay
from groundup.train.callbacks.keep_best import KeepBest
from groundup.train.callbacks.progress import (
    AtFractions,
    EverySeconds,
    MetricsLog,
    ShowProgress,
    Speed,
    logs_in,
    require_logs,
)
from groundup.train.callbacks.time_limit import TimeLimit
from groundup.train.callbacks.trackers import open_tracker
from groundup.train.callbacks.weight_average import WeightAverage
from groundup.train.checkpoints import Checkpoints
from groundup.train.fit import Callback, Progress, StepReport, diverged, fit, steps_per_second
from groundup.train.guard import SpikeGuard
from groundup.train.learning_rates import language_model_rates
from groundup.train.measurement.machine import machine_of_run
from groundup.train.measurement.memory_probe import find_max_rows
from groundup.train.measurement.step_cost import measure_steps
from groundup.train.objectives import Objective
from groundup.train.planner import Plan, micro_batches_per_rank
from groundup.train.prefetch import Prefetch
from groundup.train.run import CHECKPOINTS, TrainingRun
from groundup.train.settings import TrainingSettings

BatchT = TypeVar("BatchT")

NUM_SELECTION_SCORES = 20  # number of validation scores from which a run selects its best checkpoint


@dataclass(frozen=True, slots=True)
class TrainingSteps:
    """Number of steps, learning rates and time limit of a run.

    Attributes:
        schedule: Learning rate schedule, with the number of steps.
        optimizer: Optimizer config with the peak learning rates, or None for the default rates of pretraining,
            overridden by the rates in the settings of the Trainer.
        grad_accum_steps: Number of micro-batches per step on each rank.
        total_tokens: Number of tokens of the run, as counted by the objective's `normalizer`, or None if unknown.
        unit: Plural noun for the items that the `normalizer` counts, for the progress bar.
        flops_per_step: Model FLOPs per step, summed over all ranks, or None if unknown.
        seconds: Wall time of the run, in seconds, at which training should end, or None if there is no time limit. To
            meet the time limit, `groundup.train.TimeLimit` adjusts the number of steps during the run.
        max_steps: Maximum number of steps if `seconds` is set.
        plan_digest: Fingerprint of all settings and inputs on which the result depends (default: a digest of the fields
            above). Checkpoints with another fingerprint are rejected.
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
    def of(cls, plan: Plan, ranks: Ranks, *, max_epochs: float | None = None) -> Self:
        """Return the steps of a plan, in which each rank processes an equal part of the rows of every step.

        Args:
            plan: Plan of the run.
            ranks: Ranks of the run.
            max_epochs: Maximum number of epochs if the budget is in minutes, or None for that of the plan.

        Raises:
            ConfigError: The number of ranks does not divide the number of rows per step.
        """
        _, accum = micro_batches_per_rank(plan.rows, plan.micro_batch_size, ranks.size)
        return cls(
            plan.schedule,
            plan.optimizer,
            grad_accum_steps=accum,
            total_tokens=plan.total_tokens,
            flops_per_step=float(plan.global_batch_tokens * plan.flops_per_token),
            seconds=plan.seconds,
            max_steps=plan.max_steps_for(max_epochs or plan.max_epochs or plan.epochs),
            plan_digest=plan.digest,
        )

    @property
    def digest(self) -> str:
        """Fingerprint of the run, as a hexadecimal string."""
        return self.plan_digest or hashlib.blake2b(repr(self).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Evaluation during training, e.g. of validation scores and generated samples.

    Attributes:
        show: Function of (report of the last step, progress bar) that evaluates the current weights and shows the
            scores.
        times: Number of equal parts into which the evaluations divide the run. The end of the run is not evaluated.
    """

    show: Callable[[StepReport, ProgressBar], None]
    times: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection of the best checkpoint of a run by its validation score.

    Attributes:
        score: Returns the validation score of the current weights. A lower score is better.
        metric: Name of the metric. For "loss", the score is the loss; for all other metrics, which are between 0 and 1,
            the score is 1 minus the metric.
        patience: Number of consecutive scores without improvement after which training stops early, or None to never
            stop early.
    """

    score: Callable[[], float]
    metric: str = "loss"
    patience: int | None = None


class Trainer(Generic[ModelT, BatchT]):
    """Train a model with a given objective.

    The Trainer places the model on the device, parallelizes it over all ranks, and chooses micro-batches that fit into
    memory. The Trainer runs the training loop with logs, checkpoints, evaluations and loss spike handling, and can keep
    the best checkpoint. An interrupted run ends with the same weights as an uninterrupted run.

    Example:
        >>> with training_run(Path("runs/mine")) as run:
        ...     trainer = Trainer(model, NextToken(), TrainingSettings(), run)
        ...     trainer.train(loader.batch, TrainingSteps(WarmupStableDecay(200, 10, 100)))
        ...     save_model(run.directory, trainer.gathered(), bos_id=0, eos_id=0)

    Args:
        model: Model to train; only parameters with `requires_grad` are trained.
        objective: Loss to minimize.
        settings: Settings for precision, data parallelism, checkpoints and logs.
        run: The training run, from `training_run`.
        machine: Machine to train on, or None to measure this machine.
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
        fully_trained = None if lora_layers(model) else model.config
        self.machine = machine or machine_of_run(run, settings, fully_trained)
        self.label = label
        self.progress = Progress()
        self._average: WeightAverage | None = None
        self._parallel = parallelize(
            model,
            self.machine,
            run.ranks,
            mode=settings.parallel.mode,
            activation_checkpointing=settings.parallel.activation_checkpointing,
        )

    @property
    def model(self) -> ModelT:
        """The model without its DDP or FSDP wrapper.

        With FSDP, the parameters of the model are sharded, so call its submodules only inside of a `readable` block.
        """
        return self._parallel.model

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Context manager in which submodules of the model can be called; every rank must enter the `with` block.

        If the run averages its weights, the model has the averaged weights in the `with` block.
        """
        with self._average.in_model() if self._average else nullcontext(), self._parallel.readable():
            yield

    def gathered(self) -> ModelT:
        """Gather the sharded weights on the first rank and return the model; every rank must call this method."""
        return self._parallel.gathered()

    def max_rows(self, batch_of: Callable[[int], BatchT], at_most: int) -> int:
        """Measure the maximum number of rows of a micro-batch that fits into memory.

        Args:
            batch_of: Returns a batch with the given number of rows.
            at_most: Upper limit of the result.

        Raises:
            ResourceError: A micro-batch with a single row does not fit into memory.
        """
        state_bytes = self._parallel.optimizer_bytes
        if self.settings.ema_fraction:  # one fp32 value per parameter, in addition to the two values of AdamW
            state_bytes += state_bytes // 2
        with eager_mode():
            return find_max_rows(
                self._parallel.probe_module,
                self.objective,
                batch_of,
                max_rows=at_most,
                device=self.machine.device,
                state_bytes=state_bytes,
                ranks=self.run.ranks,
            )

    def fit_micro_batches(self, plan: Plan, batch_of: Callable[[int], BatchT]) -> Plan:
        """Choose the largest micro-batches that fit into memory, and save the plan with the new micro-batches.

        The number of rows per step does not change. On a GPU, micro-batches may become larger than planned, because
        larger micro-batches are faster.

        Args:
            plan: Plan of the run.
            batch_of: Returns a batch with the given number of rows.

        Returns:
            The plan with the new micro-batches.

        Raises:
            ConfigError: The number of ranks does not divide the number of rows per step.
            ResourceError: A micro-batch with a single row does not fit into memory.
        """
        ranks = self.run.ranks
        # This call raises the ConfigError before anything is measured.
        micro_batches_per_rank(plan.rows, plan.rows, ranks.size)
        micro = self.max_rows(batch_of, plan.rows if self.machine.device == "cuda" else plan.micro_batch_size)
        if micro != plan.micro_batch_size:
            micro, accum = micro_batches_per_rank(plan.rows, micro, 1)
            plan = replace(plan, micro_batch_size=micro, grad_accum_steps=accum)
        self.run.save_plan(machine=self.machine.to_json(), plan=plan.to_json())
        return plan

    def steps_per_second(self, batches: Callable[[int], BatchT], optimizer: OptimizerConfig) -> float:
        """Return the number of steps per second, with one micro-batch per step. The steps change the weights."""
        return steps_per_second(
            self._parallel.forward_module,
            self.objective,
            batches,
            self._parallel.optimizer(optimizer),
            ranks=self.run.ranks,
        )

    def estimate(self, steps: TrainingSteps, largest: BatchT, typical: BatchT, *, memory: int) -> str:
        """Return a sentence with the estimated training time and memory of a run.

        The estimate is based on a few measured steps with a learning rate of 0.

        Args:
            steps: Steps of the run.
            largest: Micro-batch with the highest memory use.
            typical: Micro-batch of typical size, for measuring the time.
            memory: Estimated memory in bytes, which is used if the system does not report memory use.
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
        """Restore the last checkpoint, if there is one, and train until the end of the run.

        Metrics are written to `metrics.jsonl`, and checkpoints to `checkpoints/`, in the directory of the run.

        Args:
            batches: Returns the micro-batch of this rank at a 0-based index.
            steps: Steps of the run.
            evaluation: Evaluation during training.
            selection: How the best checkpoint is selected, or None to keep the last checkpoint.
            callbacks: Additional callbacks, which are called after the logs and before the checkpoint of each step.

        Returns:
            Progress at the end of the run.

        Raises:
            ConfigError: An experiment tracker is not installed.
            FormatError: The checkpoints were saved with another plan.
            TrainingError: Training diverged.
        """
        run, make_bar = self.run, self.run.console.progress
        self._seed(steps.digest)
        optimizer = self._optimizer(steps)
        if self.settings.ema_fraction:
            self._average = WeightAverage(self.model, self.settings.ema_fraction, run.ranks)
        latest, good, best = (self._checkpoints(name, optimizer, steps.digest) for name in ("", "good", "best"))
        self.progress = latest.restore()
        self._resume(steps)
        guard = self._guard(good)
        keep = [self._keep_best(selection, best)] if selection else []
        tokens, done = steps.total_tokens, self.progress.tokens_seen
        with announced_training(self.machine.device), ExitStack() as stack:
            bar = stack.enter_context(make_bar(self.label, tokens, steps.unit, done=done, curve="loss"))
            logs = self._recorders(stack, steps, bar)
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
        self._finish()
        return self.progress

    def _finish(self) -> None:
        """Replace the weights by their average, and raise an error if they are not finite."""
        if self._average:
            self._average.move_to_model()
            self._average = None
        # The weights may be infinite or NaN if the run ends before the guard rolls back.
        if not self._parallel.is_finite():
            raise diverged(f"the weights are not finite at the last step, {self.progress.step:,}")

    def facts(self) -> dict[str, Any]:
        """Return the results of the training as JSON values, for `artifact.json`."""
        return {
            "steps": self.progress.step,
            "tokens_seen": self.progress.tokens_seen,
            "machine": self.machine.to_json(),
        }

    def _optimizer(self, steps: TrainingSteps) -> Optimizer | ShardedOptimizer:
        return self._parallel.optimizer(steps.optimizer or language_model_rates(self.settings))

    def _seed(self, digest: str) -> None:
        """Seed the random number generators of dropout from the fingerprint of the run.

        A new run draws random numbers before step 1 that a resumed run does not draw. The seed gives new and resumed
        runs the same dropout masks.
        """
        seed = int(digest[:12], 16)
        torch.manual_seed(seed)
        if self.machine.device == "cuda":
            torch.cuda.manual_seed(seed + self.run.ranks.rank)  # different dropout masks on each rank

    def _checkpoints(self, name: str, optimizer: Optimizer | ShardedOptimizer, digest: str) -> Checkpoints:
        return Checkpoints(
            self.run.directory / CHECKPOINTS / name,
            self.model,
            optimizer,
            plan_digest=digest,
            average=self._average,
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
        """Print the step at which a resumed run continues, and check the logs of the run."""
        if self.progress.step:
            self.run.console.note(f"Resuming at step {self.progress.step:,} of {self._total_steps(steps):,}.")
        if self.run.ranks.first:
            require_logs(self.run.directory, self.progress.logs, self.run.console.warn)

    def _guard(self, good: Checkpoints) -> SpikeGuard:
        progress = self.progress
        # If a run resumes, its directory may contain good checkpoints of later steps, which must not be restored.
        return SpikeGuard(
            progress,
            good.save,
            lambda: good.restore(at_most=progress.step),
            self.run.console.warn,
            spikes=self.settings.skip_loss_spikes,
        )

    def _recorders(self, stack: ExitStack, steps: TrainingSteps, bar: ProgressBar) -> list[Callback]:
        """Return the callbacks before evaluations: the average, the logs and trackers of rank 0, and the bar."""
        run, rows = self.run, self.progress.batches
        speed = Speed(steps.flops_per_step, self.machine.peak_flops and run.ranks.size * self.machine.peak_flops)
        logs: list[Callback] = [self._average] if self._average else []
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
                except FormatError as error:  # The guard handles infinite or NaN weights.
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
        self.run.console.note(f"Restored the best checkpoint (step {step:,}): validation {metric} {value:.4f}.")

    def _save(self, checkpoints: Checkpoints) -> None:
        if self.run.ranks.first:
            self.progress.logs = logs_in(self.run.directory)
        checkpoints.save(self.progress)
        if self.run.ranks.first:
            self.run.work.save_time()

    def _timers(self, latest: Checkpoints, steps: TrainingSteps) -> list[Callback]:
        """Return the callback that saves checkpoints and, if there is a time limit, the callback `TimeLimit`."""
        work, ranks, progress = self.run.work, self.run.ranks, self.progress
        save = EverySeconds(
            self.settings.checkpoint_seconds, lambda _: self._save(latest), lambda: progress.stopped, ranks
        )
        if steps.seconds is None:
            return [save]
        return [save, TimeLimit(progress, steps.seconds, lambda: work.seconds, max_steps=steps.max_steps, ranks=ranks)]


def estimate_sentence(seconds: float, memory: int, how: str) -> str:
    """Return a sentence with the estimated training time and memory of a run.

    Args:
        seconds: Training time in seconds.
        memory: Memory in bytes.
        how: Phrase that describes the basis of the estimate, such as "from measured steps".
    """
    return f"Estimate {how}: training time {format_duration(seconds)}, memory {format_count(memory, 'bytes')}."
