"""Pretraining in three steps: plan a run, train a model on token shards, and write the model directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from groundup.hub import finish_model, save_model
from groundup.kernels import Machine
from groundup.model import Transformer
from groundup.train.initial_model import Base, InitialModel
from groundup.train.learning_rates import show_rates
from groundup.train.measurement.machine import measured_machine, with_measured_kernels
from groundup.train.measurement.outcome import OutcomeRecorder
from groundup.train.planner import BASE_EPOCHS, Budget, Plan, micro_batches_per_rank
from groundup.train.planning import forecast_for, plan_pretraining, short_context_batches
from groundup.train.pretraining_data import PretrainingData
from groundup.train.run import TrainingRun
from groundup.train.settings import PretrainingSettings
from groundup.train.teachers import objective_for, train_teachers
from groundup.train.trainer import Evaluation, Trainer, TrainingSteps


class TextScore(Protocol):
    """Score of a model on held-out text."""

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        ...


ScoreT = TypeVar("ScoreT", bound=TextScore)


@dataclass(frozen=True, slots=True)
class PlannedPretraining:
    """A pretraining run that is planned, and whose training has not started in this process.

    Attributes:
        settings: Settings of the run.
        data: Training and validation text.
        base: Base model whose pretraining continues, or None for random weights.
        plan: Plan of the run.
        began: Time after planning, as a value of `time.monotonic`.
        new: Whether the run is new. Otherwise, it resumes from a checkpoint.
        trainer: Trainer with the initial model.
    """

    settings: PretrainingSettings
    data: PretrainingData
    base: Base | None
    plan: Plan
    began: float
    new: bool
    trainer: Trainer[Transformer, Any]

    @property
    def run(self) -> TrainingRun:
        """The training run on all ranks."""
        return self.trainer.run

    @property
    def model(self) -> Transformer:
        """The model to train."""
        return self.trainer.model


def prepare_pretraining(
    settings: PretrainingSettings, run: TrainingRun, data: PretrainingData, base: Base | None
) -> PlannedPretraining:
    """Plan a pretraining run, or load the plan of a run that resumes; print the plan, and build the initial model.

    Args:
        settings: Settings of the run. Exactly one of `minutes`, `tokens` and `depth` is set.
        run: The training run.
        data: Training and validation text.
        base: Base model whose pretraining continues, or None for random weights.

    Raises:
        ConfigError: The architecture settings are inconsistent.
        ResourceError: The model does not fit into memory.
    """
    start = InitialModel.of(settings.shape, base, data.train.vocab_size, settings.dropout)
    machine, plan, new = run.load_or_make_plan(partial(_machine_and_plan, settings, run, data, start))
    if new and plan.num_teachers:  # A run that is interrupted while its teachers are trained resumes with this plan.
        run.save_plan(machine=machine.to_json(), plan=plan.to_json())
    run.console.table("Training plan", ["", ""], [*plan.describe(), *machine.describe()])
    if base:
        run.console.note(base.sentence)
    began = time.monotonic()
    teachers = [*settings.teachers, *train_teachers(settings, run, data, start, machine, plan)]
    model = start.build(plan.model, settings.seed)
    model.set_dropout(plan.dropout, plan.token_dropout)
    objective = objective_for(settings, teachers, machine)
    trainer = Trainer(model, objective, settings, run, machine=machine, label="pretraining")
    if new:
        loader = partial(data.loader, settings.seed, run.ranks, plan.model.context_length)
        plan = trainer.fit_micro_batches(plan, lambda rows: loader(rows, machine).batch(0))
    return PlannedPretraining(settings, data, base, plan, began, new, trainer)


def _machine_and_plan(
    settings: PretrainingSettings, run: TrainingRun, data: PretrainingData, start: InitialModel
) -> tuple[Machine, Plan]:
    """Measure the machine and make a new plan, on every rank."""
    run.console.note("Benchmarking this machine. The first run also compiles the kernels.")
    machine = measured_machine(settings, run, native=settings.compile, compile=settings.compile, fp8=settings.fp8)
    max_epochs = settings.max_epochs or (BASE_EPOCHS if start.base else None)
    teachers = settings.num_teachers
    if teachers is None and (max_epochs or settings.teachers or run.ranks.size > 1):
        teachers = 0
    limits = (run.work.seconds, max_epochs, settings.global_batch_tokens, teachers)
    budget = Budget(settings.minutes, settings.tokens, settings.depth, *limits)
    forecast = forecast_for(data.train, data.tokenizer.decode, settings.weight_decay)
    loader = partial(data.loader, settings.seed, run.ranks)
    objective = objective_for(settings, settings.teachers, machine)
    plan = plan_pretraining(settings, run, machine, budget, start, objective, loader, forecast=forecast)
    return with_measured_kernels(machine, plan.model, run.ranks), plan


def pretrain(
    planned: PlannedPretraining, score: Callable[[], ScoreT], evaluation: Evaluation
) -> tuple[ScoreT, ScoreT | None, dict[str, Any]]:
    """Train the model of a planned run, from its last checkpoint if there is one.

    Args:
        planned: The planned run.
        score: Returns the score of the model on validation text.
        evaluation: Evaluation during training.

    Returns:
        The score after training, the score of the base model (None for random weights), and results as JSON values.

    Raises:
        TrainingError: Training diverged.
    """
    settings, plan, trainer, ranks = planned.settings, planned.plan, planned.trainer, planned.run.ranks
    random = planned.base is None
    rates = show_rates(settings, planned.model, plan.optimizer, planned.run.console, pretraining=random)
    steps = TrainingSteps.of(plan, ranks, max_epochs=settings.max_epochs)
    rows, _ = micro_batches_per_rank(plan.rows, plan.micro_batch_size, ranks.size)
    short_batches = short_context_batches(settings, plan, steps)
    context, machine = plan.model.context_length, trainer.machine
    loader = planned.data.loader(settings.seed, ranks, context, rows, machine, short_batches=short_batches)
    with trainer.readable():
        before = None if random else score()
    outcome = OutcomeRecorder(trainer, plan, planned.began, new=planned.new)
    trainer.train(loader.batch, steps, evaluation=evaluation)
    with trainer.readable():
        after = score()
    facts = plan.facts() | trainer.facts() | outcome.record(after.bpb) | {"learning_rates": rates}
    return after, before, facts


def write_pretrained(planned: PlannedPretraining, facts: dict[str, Any]) -> None:
    """Write the model directory of a trained model, with the model card and `artifact.json`. Every rank must call this.

    Args:
        planned: The run, after training.
        facts: Results of the run, for `artifact.json`.
    """
    run, tokenizer, base = planned.run, planned.data.tokenizer, planned.base
    model = planned.trainer.gathered()
    if not run.ranks.first:
        return
    stop_ids = base.stop_ids if base and base.stop_ids != (tokenizer.eos_id,) else ()
    files = [*save_model(run.directory, model, **tokenizer.text_ids, stop_ids=stop_ids), *tokenizer.save(run.directory)]
    facts = facts | {"data": planned.data.sources}
    finish_model(run.work, facts, [*files, run.plan_file], base=base.directory if base else None)
