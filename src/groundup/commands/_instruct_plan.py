"""What `groundup finetune instruct` decides before step 1: how often to see the examples, in what steps; and how long
that will take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from groundup.commands._optimizer import language_model_rates
from groundup.commands._plans import fitting, foretold
from groundup.commands._training import parallelize

if TYPE_CHECKING:
    from groundup.commands.finetune_instruct import FinetuneInstructConfig
    from groundup.data import ExampleLoader
    from groundup.data.encoded import Encoded
    from groundup.distributed import ParallelModel
    from groundup.distributed.ranks import Ranks
    from groundup.kernels import Machine
    from groundup.model import Transformer
    from groundup.train.objectives.next_token import PackedBatch
    from groundup.train.planner import Plan

_WINDOW = 512  # tokens, unless an example needs more


def make_plan(
    config: FinetuneInstructConfig,
    model: Transformer,
    pad_id: int,
    encoded: Sequence[Encoded],
    ranks: Ranks,
    *,
    seconds_spent: float,
) -> tuple[Machine, Plan]:
    """A new plan; where minutes are given, real steps are measured, by all ranks together."""
    import copy
    import math
    import time
    from dataclasses import replace

    from groundup.kernels import Machine, measure_machine
    from groundup.model.lora import adapter_parameters
    from groundup.train import steps_per_second
    from groundup.train.objectives import NextToken
    from groundup.train.planner import Plan
    from groundup.train.planner.tuning import (
        USUAL_EPOCHS,
        evenly,
        plan_tuning,
        probe_rows,
        step_rows,
        within,
        worth_compiling,
    )

    started = time.monotonic()
    longest = 64 * math.ceil(max(len(ids) for ids, _ in encoded) / 64)
    context = model.config.context_length
    shape = replace(model.config, context_length=min(context, max(_WINDOW, longest)))
    machine = measure_machine(threads=config.threads, native=config.compile, compile=False, dtype=config.dtype)

    def loader(rows: int) -> ExampleLoader:
        return loader_of(config, encoded, shape.context_length, rows, pad_id, machine, ranks)

    rows_per_epoch = loader(1).n_rows
    epochs = config.epochs or USUAL_EPOCHS
    tokens = epochs * rows_per_epoch * shape.context_length
    trained = adapter_parameters(model)
    worth = worth_compiling(shape, tokens, ranks.size * machine.product_flops, trained)
    if config.compile and worth and not machine.native:
        machine = measure_machine(threads=config.threads, native=False, dtype=config.dtype)
    machine = Machine.from_json(ranks.told(machine.to_json()))
    rates = language_model_rates(config, shape.dim, adapted=trained is not None)
    step = evenly(step_rows(rows_per_epoch, epochs, shape.context_length), ranks.size)
    rate = None
    if config.minutes is not None:
        spread = parallelize(copy.deepcopy(model), machine, config.parallel, ranks)
        rows = probe_rows(shape, machine.product_flops, step[0])
        rows = fitting(spread, NextToken(), lambda rows: loader(rows).batch(0), rows, machine, ranks)
        batches = loader(rows).batch
        steps = steps_per_second(spread.called, NextToken(), batches, spread.optimizer(rates), ranks=ranks)
        rate = steps * rows * ranks.size * shape.context_length
        left = 60 * config.minutes - seconds_spent - (time.monotonic() - started)
        epochs = within(left, rate, rows_per_epoch * shape.context_length, epochs)
        step = evenly(step_rows(rows_per_epoch, epochs, shape.context_length), ranks.size)
    plan = plan_tuning(
        shape,
        rates,
        rows_per_epoch=rows_per_epoch,
        epochs=epochs,
        step=step,
        tokens_per_second=rate,
        trained=trained,
        minutes=config.minutes,
        warmup=config.warmup_ratio,
        decay=config.decay_ratio,
    )
    return machine, Plan.from_json(ranks.told(plan.to_json()))


def foretold_of(
    plan: Plan,
    micro: int,
    accum: int,
    spread: ParallelModel[Transformer],
    batch: PackedBatch,
    machine: Machine,
    ranks: Ranks,
) -> str:
    """Time and memory to be expected of a plan; where minutes are given, its speed is known."""
    from groundup.model.flops import IDLE_BYTES, training_bytes
    from groundup.train.objectives import NextToken
    from groundup.train.planner.tuning import expected

    formula = IDLE_BYTES + training_bytes(plan.model, micro, trained=plan.trained)
    if plan.tokens_per_second:
        return expected(plan.total_tokens / plan.tokens_per_second, formula, "at the speed that was measured")
    return foretold(
        spread,
        NextToken(),
        batch,
        batch,
        plan.optimizer,
        steps=plan.total_steps,
        grad_accum_steps=accum,
        machine=machine,
        ranks=ranks,
        formula=formula,
    )


def loader_of(
    config: FinetuneInstructConfig,
    encoded: Sequence[Encoded],
    window: int,
    rows: int,
    pad_id: int,
    machine: Machine,
    ranks: Ranks,
) -> ExampleLoader:
    """This rank's micro-batches of so many rows."""
    from groundup.data import ExampleLoader

    return ExampleLoader(
        encoded,
        context_length=window,
        batch_size=rows,
        pad_id=pad_id,
        seed=config.seed,
        cut=config.cut_long,
        rank=ranks.rank,
        world_size=ranks.size,
        device=machine.device,
    )
