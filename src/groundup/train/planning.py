"""Plan training runs. If the budget is in minutes, the plan is based on measured training steps."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from groundup.core.errors import ConfigError
from groundup.data import ExampleLoader, TokenShards
from groundup.distributed.parallel_model import rank_memory
from groundup.kernels import Machine
from groundup.model import ModelConfig, Transformer
from groundup.model.families import FAMILIES
from groundup.model.flops import IDLE_BYTES, training_bytes
from groundup.model.lora import adapter_parameters
from groundup.model.quantization import bits_per_weight
from groundup.optim import OptimizerConfig
from groundup.train.initial_model import InitialModel
from groundup.train.learning_rates import language_model_rates, show_rates
from groundup.train.measurement.machine import measured_machine, with_measured_kernels
from groundup.train.measurement.training_text import ppmd_of_shards
from groundup.train.objectives import Objective
from groundup.train.planner import Budget, Forecast, Plan, plan_run, regularized
from groundup.train.planner.fine_tuning import (
    DEFAULT_EPOCHS,
    affordable_epochs,
    fine_tuning_plan,
    measured_rows,
    shareable_step,
    should_compile,
    step_rows,
)
from groundup.train.planner.law import law_for
from groundup.train.planner.limits import limit_sentence
from groundup.train.planner.plan import SAVE_FRACTION
from groundup.train.run import TrainingRun
from groundup.train.settings import FineTuningSettings, PretrainingSettings
from groundup.train.trainer import Evaluation, Selection, Trainer, TrainingSteps, estimate_sentence

MakeLoader = Callable[[int, int, Machine], Any]
"""Function of (context length, rows per micro-batch, machine) that returns a loader with a method `batch(index)`."""

_WINDOW = 512  # minimum number of tokens per row of packed examples


def plan_pretraining(
    settings: PretrainingSettings,
    run: TrainingRun,
    machine: Machine,
    budget: Budget,
    start: InitialModel,
    objective: Objective[Any],
    loader: MakeLoader,
    *,
    forecast: Forecast,
) -> Plan:
    """Plan a pretraining run. If the budget is in minutes, training steps are measured on all ranks.

    Args:
        settings: Settings of the run.
        run: The training run.
        machine: Machine with a measured throughput.
        budget: Minutes, tokens or depth.
        start: Initial model of the run.
        objective: Loss to minimize.
        loader: Returns the data loader of this rank.
        forecast: Scaling law and training text.

    Raises:
        ConfigError: The architecture settings are inconsistent.
        ResourceError: The model does not fit into memory.
    """
    ranks, base = run.ranks, start.base
    optimizer = language_model_rates(settings, base.config.dim if base else None)

    def measure(shape: ModelConfig, rows: int) -> float:
        if ranks.first:
            ranks.broadcast_object([shape.to_json(), rows])
        fitted = with_measured_kernels(machine, shape, ranks)
        trainer = Trainer(start.build_random(shape, settings.seed), objective, settings, run, machine=fitted)
        rate = _measured_rate(trainer, loader, optimizer, shape, rows)
        run.console.note(f"{shape.n_layers} layers, hidden size {shape.dim}: {rate:,.0f} tokens/s")
        return rate

    if not ranks.first:  # The other ranks measure the architectures that the first rank broadcasts.
        while isinstance(message := ranks.broadcast_object(None), list):
            measure(ModelConfig.from_json(message[0]), message[1])
        return Plan.from_json(message)
    plan = plan_run(
        budget,
        vocab_size=start.vocab_size,
        given_shape=start.shape,
        forecast=forecast,
        matmul_flops=ranks.size * machine.matmul_flops,
        measure=measure,
        optimizer=optimizer,
        memory_bytes=rank_memory(machine, ranks, settings.parallel.mode),
    )
    plan = _completed(plan, settings, forecast, random=base is None)
    ranks.broadcast_object(plan.to_json())
    if limited := limit_sentence(forecast, plan, budget):
        run.console.note(limited)
    return plan


def _measured_rate(
    trainer: Trainer[Any, Any], loader: MakeLoader, optimizer: OptimizerConfig, shape: ModelConfig, rows: int
) -> float:
    """Return the tokens per second of training steps with at most `rows` rows."""

    def batches(rows: int) -> Callable[[int], Any]:
        return loader(shape.context_length, rows, trainer.machine).batch

    rows = trainer.max_rows(lambda rows: batches(rows)(0), rows)
    gc.collect()  # Models that were measured earlier are in reference cycles.
    steps_per_second = trainer.steps_per_second(batches(rows), optimizer)
    return steps_per_second * rows * trainer.run.ranks.size * shape.context_length


def _completed(plan: Plan, settings: PretrainingSettings, forecast: Forecast, *, random: bool) -> Plan:
    """Return a plan with regularization, schedule and prediction, which applies only to random initial weights."""
    names = ("weight_decay", "embedding_weight_decay", "dropout", "token_dropout")
    given = {name: getattr(settings, name) for name in names}
    distilled = bool(plan.num_teachers or settings.teachers)
    if distilled:  # The teachers prevent overfitting; token dropout in addition made the result worse.
        given["token_dropout"] = settings.token_dropout or 0.0
    if not random:  # The defaults were measured for random weights. Decay would undo the training of the base model.
        given = {name: value or 0.0 for name, value in given.items()}
    plan = regularized(plan, **given).with_schedule(settings.warmup_ratio, settings.decay_ratio)
    found = forecast.interval(plan.model, plan.total_tokens, distilled=distilled)
    return replace(plan, bits_per_byte=(found.value, found.low, found.high) if random else None)


def short_context_batches(settings: PretrainingSettings, plan: Plan, steps: TrainingSteps) -> int:
    """Return the number of micro-batches of a rank with short contexts, for `groundup.data.Loader`.

    The number depends on the planned number of steps, also if there is a time limit. So a batch depends on its index
    only, and a run whose later steps are slower has fewer steps with full contexts.

    Args:
        settings: Settings of the run.
        plan: Plan of the run.
        steps: Steps of the run on this rank.

    Raises:
        ConfigError: The model has learned position embeddings, which are trained only if a context reaches them.
    """
    ratio, family = settings.short_context_ratio, plan.model.family
    if ratio and FAMILIES[family].positions != "rotary":
        raise ConfigError(
            f"short_context_ratio = {ratio:g} with the family {family}, which has learned position embeddings",
            fix="Remove short_context_ratio, or choose a family with rotary position embeddings.",
        )
    # An even number of steps, so that the length changes between two steps and not between two micro-batches.
    return 2 * round(ratio * plan.total_steps / 2) * steps.grad_accum_steps


def forecast_for(
    shards: TokenShards, decode: Callable[[Sequence[int]], str], weight_decay: float | None = None
) -> Forecast:
    """Return the scaling law for the training split of token shards.

    Args:
        shards: Training split.
        decode: Returns the text of token ids.
        weight_decay: Weight decay of the run, or None if it depends on the number of epochs.
    """
    return Forecast(
        shards.n_tokens + shards.n_documents,
        shards.n_bytes,
        ppmd_of_shards(shards.directory, decode),
        law_for(shards.directory),
        weight_decay,
    )


def plan_fine_tuning(
    settings: FineTuningSettings,
    run: TrainingRun,
    model: Transformer,
    objective: Objective[Any],
    loader: MakeLoader,
    *,
    longest: int,
    compile: bool,
) -> tuple[Machine, Plan]:
    """Measure the machine and plan an instruction tuning run. For a budget in minutes, also measure training steps.

    Args:
        settings: Settings of the run.
        run: The training run.
        model: Model to fine-tune.
        objective: Loss to minimize.
        loader: Returns the `ExampleLoader` of this rank.
        longest: Number of tokens of the longest example.
        compile: Whether to compile the layers if the run is long enough to benefit from compilation.
    """
    ranks = run.ranks
    window = min(model.config.context_length, max(_WINDOW, 64 * math.ceil(longest / 64)))
    shape = replace(model.config, context_length=window)
    lora_parameters = adapter_parameters(model)
    frozen = lora_parameters is not None
    machine = measured_machine(settings, run, native=compile, compile=False, frozen=frozen)
    packed = loader(window, 1, machine)
    rows_per_epoch = packed.n_rows
    epochs = settings.num_epochs or DEFAULT_EPOCHS
    tokens = epochs * rows_per_epoch * window
    worth = should_compile(shape, tokens, ranks.size * machine.matmul_flops, lora_parameters)
    if compile and worth and not machine.native:
        machine = measured_machine(settings, run, native=False, frozen=frozen)
    if not frozen:
        machine = with_measured_kernels(machine, shape, ranks)
    rates = language_model_rates(settings, shape.dim, adapted=frozen)
    step = shareable_step(step_rows(rows_per_epoch, epochs, window, adapted=frozen), ranks.size)
    speed = None
    if settings.minutes is not None:
        trainer = Trainer(copy.deepcopy(model), objective, settings, run, machine=machine)
        speed = _measured_speed(trainer, partial(loader, window), rates, step[0], window)
        left = 60 * settings.minutes - run.work.seconds
        epochs = affordable_epochs(left, speed, rows_per_epoch * window, epochs)
        step = shareable_step(step_rows(rows_per_epoch, epochs, window, adapted=frozen), ranks.size)
    plan = fine_tuning_plan(
        shape,
        rates,
        rows_per_epoch=rows_per_epoch,
        epochs=epochs,
        step=step,
        lora_parameters=lora_parameters,
        labeled_fraction=packed.trained_tokens / (rows_per_epoch * window),
    )
    seconds = None if settings.minutes is None else 60 * settings.minutes * (1 - SAVE_FRACTION)
    scheduled = plan.with_schedule(settings.warmup_ratio, settings.decay_ratio)
    plan = replace(scheduled, tokens_per_second=speed, seconds=seconds)
    return machine, Plan.from_json(ranks.broadcast_object(plan.to_json()))


def _measured_speed(
    trainer: Trainer[Any, Any], loader: Callable[[int, Machine], Any], rates: OptimizerConfig, rows: int, window: int
) -> float:
    """Return the tokens per second of all ranks, for steps with at most `rows` windows of `window` tokens."""
    machine = trainer.machine
    rows = measured_rows(replace(trainer.model.config, context_length=window), machine.matmul_flops, rows)
    rows = trainer.max_rows(lambda rows: loader(rows, machine).batch(0), rows)
    return trainer.steps_per_second(loader(rows, machine).batch, rates) * rows * trainer.run.ranks.size * window


def estimate(trainer: Trainer[Any, Any], plan: Plan, steps: TrainingSteps, batch: Any) -> str:
    """Return a sentence with the estimated training time and memory of a plan.

    Args:
        trainer: Trainer of the run.
        plan: Plan of the run.
        steps: Steps of the run on this rank.
        batch: A micro-batch, for measuring the cost of a step if the plan has no measured throughput.
    """
    rows = plan.rows // (steps.grad_accum_steps * trainer.run.ranks.size)
    bits = bits_per_weight(trainer.model)
    memory = IDLE_BYTES + training_bytes(plan.model, rows, lora_parameters=plan.lora_parameters, bits_per_weight=bits)
    if plan.tokens_per_second:
        return estimate_sentence(plan.total_tokens / plan.tokens_per_second, memory, "at the measured speed")
    return trainer.estimate(steps, batch, batch, memory=memory)


def fine_tune(
    trainer: Trainer[Transformer, Any],
    plan: Plan,
    batches: ExampleLoader,
    *,
    new: bool,
    max_epochs: float,
    evaluation: Evaluation,
    selection: Selection | None,
) -> dict[str, Any]:
    """Print the plan, the learning rates, and the estimated time and memory; then fine-tune the model.

    Args:
        trainer: Trainer of the run.
        plan: Plan of the run.
        batches: Micro-batches of this rank.
        new: True if the run is new, False if it resumes.
        max_epochs: Maximum number of epochs if the budget is in minutes.
        evaluation: Evaluation during training.
        selection: How the best checkpoint is selected, or None to keep the last checkpoint.

    Returns:
        Results of the training as JSON values.
    """
    settings, console = trainer.settings, trainer.run.console
    if batches.too_long:
        done = "are truncated" if batches.cut else "are dropped; set truncate = true to truncate them instead"
        context = plan.model.context_length
        console.warn(f"{batches.too_long:,} examples longer than {context:,} tokens {done}.")
    if batches.shared_tokens:
        saved = batches.shared_tokens / (batches.shared_tokens + batches.n_rows * plan.model.context_length)
        console.note(f"Prompts that begin with the same tokens share them, which saves {saved:.0%} of the tokens.")
    steps = TrainingSteps.of(plan, trainer.run.ranks, max_epochs=max_epochs)
    total = batches.labels_until(plan.total_steps * steps.grad_accum_steps)
    steps = replace(steps, total_tokens=total, unit="trained tokens")
    console.table("Training plan", ["", ""], [*plan.describe(total), *trainer.machine.describe()])
    rates = show_rates(settings, trainer.model, plan.optimizer, console, adapted=plan.lora_parameters is not None)
    if new:
        console.note(estimate(trainer, plan, steps, batches.batch(0)))
    progress = trainer.train(batches.batch, steps, evaluation=evaluation, selection=selection)
    epochs = round(plan.epochs * progress.step / plan.total_steps, 3)
    return plan.facts() | trainer.facts() | {"epochs": epochs, "learning_rates": rates}
