"""`groundup pretrain`: train a base model on token shards, from random weights or from a base model."""

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
from groundup.train.settings import NOT_IN_FINGERPRINT, TrainingSettings

if TYPE_CHECKING:
    from groundup.data import Loader, TokenShards
    from groundup.distributed.ranks import Ranks
    from groundup.kernels import Machine
    from groundup.train.initial_model import Base
    from groundup.train.planner import Plan


EXAMPLE = "groundup pretrain runs/notes/tokens --out runs/notes/base --minutes 5"


class PretrainConfig(TrainingSettings):
    """One of minutes, tokens and depth sets the size; the rest is derived, printed and saved in plan.json."""

    token_shards: Path = setting(help="output directory of groundup tokenize", positional=True)
    out: Path = setting(help="directory for the model", flag=True)
    model: Path | None = setting(None, help="continue this model (a directory, or a run)", flag=True)
    minutes: float | None = setting(None, help="train for this long on this machine", flag=True, gt=0)
    tokens: int | None = setting(None, help="train on this many tokens", flag=True, gt=0)
    depth: int | None = setting(None, help="train this many layers, 20 tokens a parameter", flag=True, gt=0)
    shape: ShapeConfig = setting(ShapeConfig(), help="the model, as far as you want to decide it")
    z_loss: float = setting(0.0, help="coefficient of the squared log of softmax's denominator in the loss", ge=0)
    compile: bool = setting(True, help="compile what takes the time; needs a C++ compiler, else runs without")
    fp8: bool = setting(False, help="compute the layers' products in fp8, on a GPU that has it (pip: groundup[fp8])")
    evaluations: int = setting(8, help="how often to score validation text and show a sample on the way", ge=0)
    sample_prompt: str = setting("", help="prompt of the samples")

    @model_validator(mode="after")
    def _one_size(self) -> PretrainConfig:
        from groundup.train.planner import Budget

        Budget(self.minutes, self.tokens, self.depth)
        require_one_shape(self.shape, self.model, self.depth)
        return self


def run(config: PretrainConfig, *, console: Console | None = None) -> Artifact:
    """Train a model until its plan is done; an interrupted run resumes from its last checkpoint.

    Raises:
        DataError: no token shards there, or no model.
        ConfigError: a shape that is not consistent, or tokens that are not in the model's vocabulary.
        ResourceError: a model too large for the memory here.
        TrainingError: it diverged.
    """
    from groundup.hub.resolve import base_identity

    keys = config.model_dump(mode="json", exclude={"token_shards", "model", *NOT_IN_FINGERPRINT})
    inputs = {"tokens": read_output(config.token_shards, "tokenize").digest}
    base = None
    if config.model:  # checked before an earlier output is moved
        inputs["model"] = base_identity(config.model)
        base = find_base(config.model, config.token_shards / "tokenizer")
    with training_run(config.out, "pretrain", keys, inputs, console) as training:
        if not training.finished:
            _train(config, base, training)
        if training.ranks.first:
            drop_checkpoints(config.out)
    return read(config.out)


def _train(config: PretrainConfig, base: Base | None, run: TrainingRun) -> None:
    """Plan, train, and write the model directory with its artifact."""
    from groundup.data import TokenShards
    from groundup.evaluation.bpb import compare_bits_per_byte
    from groundup.evaluation.during_training import show_text, text_score
    from groundup.hub import save_model
    from groundup.inference import Engine
    from groundup.tokenizer import Tokenizer
    from groundup.train import Evaluation, Trainer, TrainingSteps
    from groundup.train.objectives import NextToken
    from groundup.train.planner import MOST_EPOCHS, Budget, share
    from groundup.train.planning import plan_pretraining
    from groundup.train.trainer import measured_machine

    console, ranks = run.console, run.ranks
    tokenizer = Tokenizer.load(config.token_shards / "tokenizer")
    shards, validation = (TokenShards(config.token_shards, split) for split in ("train", "validation"))
    if ranks.first:
        shards.require_known_ids()
        validation.require_known_ids()
    objective, start = NextToken(config.z_loss), InitialModel.of(config.shape, base, shards.vocab_size)
    loader = partial(_loader, config, shards, ranks)

    def planned() -> tuple[Machine, Plan]:
        console.note("Measuring the machine; the first time, kernels are compiled for it.")
        machine = measured_machine(config, run, native=config.compile, compile=config.compile, fp8=config.fp8)
        budget = Budget(config.minutes, config.tokens, config.depth, run.work.seconds)
        tokens = shards.n_tokens + shards.n_documents
        return machine, plan_pretraining(config, run, machine, budget, start, objective, loader, corpus_tokens=tokens)

    machine, plan, new = run.plan(planned)
    console.table("The plan", ["", ""], plan.describe())
    if base is not None:
        console.note(base.sentence)
    model = start.build(plan.model, config.seed)
    trainer = Trainer(model, objective, config, run, machine=machine, label="pretraining")
    context = plan.model.context_length
    plan = trainer.settle(plan, lambda rows: loader(context, rows, machine).batch(0)) if new else plan
    rates = show_rates(config, model, plan.optimizer, console, pretraining=base is None)
    rows, _ = share(plan.rows, plan.micro_batch_size, ranks.size)
    steps = TrainingSteps.of(plan, ranks, max_epochs=MOST_EPOCHS)
    score = text_score(validation, model)
    with trainer.readable():
        before = score() if base else None
    with Engine(model, tokenizer) as engine:
        evaluation = Evaluation(show_text(engine, score, config.sample_prompt, run), config.evaluations)
        trainer.train(loader(context, rows, machine).batch, steps, evaluation=evaluation)
    with trainer.readable():
        compared = compare_bits_per_byte(score(), before) if before else None
    model = trainer.gathered()
    if not ranks.first:
        return
    stop_ids = base.stop_ids if base and base.stop_ids != (tokenizer.eos_id,) else ()
    files = [*save_model(run.directory, model, **tokenizer.text_ids, stop_ids=stop_ids), *tokenizer.save(run.directory)]
    facts = plan.facts() | trainer.facts() | {"learning_rates": rates}
    if compared is not None:
        console.note(f"Held-out text: {compared.sentence}")
        facts |= {"base": str(config.model), "held_out": compared.facts()}
    run.work.finish(facts, [*files, run.plan_file])


def _loader(
    config: PretrainConfig, shards: TokenShards, ranks: Ranks, context_length: int, rows: int, machine: Machine
) -> Loader:
    from groundup.data.loader import BatchPlacement, Loader

    place = BatchPlacement(ranks.rank, ranks.size, machine.device)
    return Loader(
        shards, context_length=context_length, batch_size=rows, bos_id=shards.bos_id, seed=config.seed, place=place
    )
