"""`groundup pretrain`: train a base model on token shards, from random weights or from an existing model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import model_validator

from groundup.core.artifact import Artifact, read
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.pipeline import read_output
from groundup.train.initial_model import InitialModel, ShapeConfig, find_base, require_one_shape
from groundup.train.learning_rates import show_rates
from groundup.train.run import TrainingRun, drop_checkpoints, training_run
from groundup.train.settings import NOT_IN_FINGERPRINT, PretrainingSettings

if TYPE_CHECKING:
    from groundup.data import Loader, TokenShards
    from groundup.distributed.ranks import Ranks
    from groundup.kernels import Machine
    from groundup.train.initial_model import Base
    from groundup.train.planner import Plan

EXAMPLE = "groundup pretrain runs/notes/tokens --out runs/notes/base --minutes 5"


class PretrainConfig(PretrainingSettings):
    """Settings of `groundup pretrain`. Exactly one of `minutes`, `tokens` and `depth` must be set."""

    token_shards: Path = setting(help="output directory of groundup tokenize", positional=True)
    out: Path = setting(help="output directory for the model", flag=True)
    model: Path | None = setting(None, help="model to continue pretraining: a model or run directory", flag=True)
    minutes: float | None = setting(None, help="training time on this machine, in minutes", flag=True, gt=0)
    tokens: int | None = setting(None, help="number of training tokens", flag=True, gt=0)
    depth: int | None = setting(None, help="number of layers; training uses 20 tokens per parameter", flag=True, gt=0)
    shape: ShapeConfig = setting(ShapeConfig(), help="architecture of the model; keys that are not set are derived")
    compile: bool = setting(True, help="use torch.compile if a C++ compiler is installed")
    fp8: bool = setting(False, help="use fp8 matmuls in the layers, if the GPU supports fp8 (pip: groundup[fp8])")
    num_evaluations: int = setting(8, help="number of evaluations and generated samples during training", ge=0)
    sample_prompt: str = setting("", help="prompt of the generated samples")

    @model_validator(mode="after")
    def _one_size(self) -> PretrainConfig:
        from groundup.train.planner import Budget

        Budget(self.minutes, self.tokens, self.depth)
        require_one_shape(self.shape, self.model, self.depth)
        return self


def run(config: PretrainConfig, *, console: Console | None = None) -> Artifact:
    """Pretrain a model, or resume an interrupted run with the same settings from its last checkpoint.

    Raises:
        DataError: The token shards or the base model do not exist.
        ConfigError: The architecture settings are inconsistent, or the base model has another vocabulary.
        ResourceError: The model does not fit into memory.
        TrainingError: Training diverged.
    """
    from groundup.hub.resolve import base_identity

    keys = config.model_dump(mode="json", exclude={"token_shards", "model", *NOT_IN_FINGERPRINT})
    inputs = {"tokens": read_output(config.token_shards, "tokenize").digest}
    base = None
    if config.model:  # validated before `training_run` moves an earlier output to another path
        inputs["model"] = base_identity(config.model)
        base = find_base(config.model, config.token_shards / "tokenizer")
    with training_run(config.out, "pretrain", keys, inputs, console) as training:
        if not training.finished:
            _train(config, base, training)
        if training.ranks.first:
            drop_checkpoints(config.out)
    return read(config.out)


def _train(config: PretrainConfig, base: Base | None, run: TrainingRun) -> None:
    """Plan the run, train the model, and write the model directory with `artifact.json`."""
    from groundup.data import TokenShards
    from groundup.evaluation.during_training import comparison_facts, show_text, text_score
    from groundup.hub import finish_model, save_model
    from groundup.tokenizer import Tokenizer
    from groundup.train import Evaluation, Trainer, TrainingSteps, measured_machine, with_measured_kernels
    from groundup.train.objectives import NextToken
    from groundup.train.outcome import OutcomeRecorder
    from groundup.train.planner import BASE_EPOCHS, Budget, micro_batches_per_rank
    from groundup.train.planning import forecast_for, plan_pretraining, short_context_batches

    console, ranks, data = run.console, run.ranks, read(config.token_shards).facts.get("data")
    tokenizer = Tokenizer.load(config.token_shards / "tokenizer")
    shards, validation = (TokenShards(config.token_shards, split) for split in ("train", "validation"))
    if ranks.first:
        shards.require_known_ids()
        validation.require_known_ids()
    objective, loader = NextToken(config.z_loss), partial(_loader, config, shards, ranks)
    start = InitialModel.of(config.shape, base, shards.vocab_size, config.dropout)

    def planned() -> tuple[Machine, Plan]:
        console.note("Benchmarking this machine. The first run also compiles the kernels.")
        machine = measured_machine(config, run, native=config.compile, compile=config.compile, fp8=config.fp8)
        max_epochs = config.max_epochs or (BASE_EPOCHS if base else None)
        limits = (run.work.seconds, max_epochs, config.global_batch_tokens)
        budget = Budget(config.minutes, config.tokens, config.depth, *limits)
        forecast = forecast_for(shards, tokenizer.decode, config.weight_decay)
        plan = plan_pretraining(config, run, machine, budget, start, objective, loader, forecast=forecast)
        return with_measured_kernels(machine, plan.model, ranks), plan

    machine, plan, new = run.plan(planned)
    console.table("Training plan", ["", ""], [*plan.describe(), *machine.describe()])
    if base:
        console.note(base.sentence)
    model = start.build(plan.model, config.seed)
    model.set_dropout(plan.dropout, plan.token_dropout)
    trainer = Trainer(model, objective, config, run, machine=machine, label="pretraining")
    context = plan.model.context_length
    plan = trainer.fit_micro_batches(plan, lambda rows: loader(context, rows, machine).batch(0)) if new else plan
    rates = show_rates(config, model, plan.optimizer, console, pretraining=base is None)
    rows, _ = micro_batches_per_rank(plan.rows, plan.micro_batch_size, ranks.size)
    steps = TrainingSteps.of(plan, ranks, max_epochs=config.max_epochs)
    score = text_score(validation, model)
    with trainer.readable():
        before = score() if base else None
    evaluation = Evaluation(show_text(model, tokenizer, score, config.sample_prompt, run), config.num_evaluations)
    batches = loader(context, rows, machine, short_batches=short_context_batches(config, plan, steps)).batch
    outcome = OutcomeRecorder(trainer, plan, new=new)
    trainer.train(batches, steps, evaluation=evaluation)
    with trainer.readable():
        after = score()
    model = trainer.gathered()
    if not ranks.first:
        return
    stop_ids = base.stop_ids if base and base.stop_ids != (tokenizer.eos_id,) else ()
    files = [*save_model(run.directory, model, **tokenizer.text_ids, stop_ids=stop_ids), *tokenizer.save(run.directory)]
    facts = plan.facts() | trainer.facts() | outcome.facts(after.bpb) | {"learning_rates": rates, "data": data}
    facts |= comparison_facts(after, before, str(config.model), console)
    finish_model(run.work, facts, [*files, run.plan_file], base=base.directory if base else None)


def _loader(
    config: PretrainConfig, shards: TokenShards, ranks: Ranks, context: int, rows: int, machine: Machine, **more: int
) -> Loader:
    from groundup.data.loader import BatchPlacement, Loader

    place, same = BatchPlacement(ranks.rank, ranks.size, machine.device), {"seed": config.seed, **more}
    return Loader(shards, context_length=context, batch_size=rows, bos_id=shards.bos_id, place=place, **same)
