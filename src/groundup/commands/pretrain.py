"""`groundup pretrain`: token shards to a base model, trained from scratch or from a model that there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from groundup.commands._closing import inside
from groundup.commands._optimizer import OptimizerSettings, language_model_rates, show_rates
from groundup.commands._plans import SavedPlan, fitting
from groundup.commands._shape import ShapeConfig, find_base, given_shape
from groundup.commands._training import (
    NO_PART_OF_THE_RESULT,
    ParallelConfig,
    TrackerName,
    base_identity,
    begun,
    drop_checkpoints,
    memory_of_a_rank,
    parallelize,
    train,
)
from groundup.core.artifact import Artifact, Work, read
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.pipeline import read_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from groundup.commands._shape import Base
    from groundup.core.console import Progress
    from groundup.data import Loader, TokenShards
    from groundup.distributed.ranks import Ranks
    from groundup.evaluation.bpb import BitsPerByte
    from groundup.inference import Engine
    from groundup.kernels import Machine
    from groundup.model import Transformer
    from groundup.train import SampleLog, StepReport
    from groundup.train.planner import Plan

_PROBE_TOKENS = 16_384  # of held-out text, scored on the way: 1 to 2 seconds
_SHOWN_TOKENS = 60


class PretrainConfig(OptimizerSettings):
    """One dial (minutes, tokens or depth); the rest is derived, printed and saved in plan.json before step 1."""

    token_shards: Path = setting(help="what groundup tokenize left", positional=True)
    out: Path = setting(help="directory for the model", flag=True)
    model: Path | None = setting(
        None, help="go on from this model (a directory, or a run), not from nothing", flag=True
    )
    minutes: float | None = setting(None, help="train for this long on this machine", flag=True, gt=0)
    tokens: int | None = setting(None, help="train on this many tokens", flag=True, gt=0)
    depth: int | None = setting(None, help="train this many layers, 20 tokens a parameter", flag=True, gt=0)
    seed: int = setting(0, help="of the first weights and the order of documents", flag=True, ge=0)
    shape: ShapeConfig = setting(ShapeConfig(), help="the model, as far as you want to decide it")
    z_loss: float = setting(0.0, help="hold the logits: this times the squared log of softmax's denominator", ge=0)
    threads: int | None = setting(None, help="CPU threads; default: one a core", gt=0)
    dtype: Literal["float32", "bfloat16"] | None = setting(None, help="dtype of matrix products; default: the faster")
    compile: bool = setting(True, help="compile what takes the time; needs a C++ compiler, else runs without")
    fp8: bool = setting(False, help="compute the layers' products in fp8, on a GPU that has it (pip: groundup[fp8])")
    parallel: ParallelConfig = setting(ParallelConfig(), help="how the ranks that torchrun starts share the work")
    checkpoint_seconds: float = setting(
        30.0, help="save the run this often, or as often as takes 5 % of its time; 0: after every step", ge=0
    )
    skip_spikes: bool = setting(True, help="skip steps whose loss is far above those before")
    log_to: tuple[TrackerName, ...] = setting((), help="draw curves with tensorboard, wandb or trackio, too")
    evaluations: int = setting(8, help="how often to score held-out text and show a sample on the way", ge=0)
    sample_prompt: str = setting("", help="what the samples go on from")

    @model_validator(mode="after")
    def _one_dial(self) -> PretrainConfig:
        dials = {"minutes": self.minutes, "tokens": self.tokens, "depth": self.depth}
        given = [f"{name} = {value}" for name, value in dials.items() if value is not None]
        if len(given) != 1:
            raise ConfigError(
                " and ".join(given) or "neither minutes, tokens nor depth",
                rule="exactly one dial sets the size of a run: minutes, tokens or depth",
                fix="Give one of them; an empty value takes out what a recipe gives: --set pretrain.minutes=",
            )
        shape = self.shape.model_dump(exclude_none=True, exclude={"context_length"})
        if self.model and shape:
            raise ConfigError(
                f"model = {self.model} and shape.{next(iter(shape))} = {next(iter(shape.values()))}",
                rule="a model that there is has its shape; only shape.context_length, of the windows, is open",
                fix="Leave one of the two out.",
            )
        if self.depth and (fixed := "model" if self.model else "shape.preset" if self.shape.preset else ""):
            raise ConfigError(
                f"depth = {self.depth} and {fixed} = {self.model or self.shape.preset}",
                rule=f"{fixed} says how many layers there are",
                fix="Give minutes or tokens instead of depth.",
            )
        return self


def run(config: PretrainConfig, *, console: Console | None = None) -> Artifact:
    """Train a model until its plan is done; a run that was cut off goes on from its last checkpoint.

    Raises:
        DataError: no token shards there, or no model.
        ConfigError: a shape that cannot be, or tokens that are not in the model's vocabulary.
        ResourceError: a model too large for the memory here.
        TrainingError: it diverged.
    """
    console = console or Console()
    keys = config.model_dump(mode="json", exclude={"token_shards", "model", *NO_PART_OF_THE_RESULT})
    inputs = {"tokens": read_output(config.token_shards, "tokenize").digest}
    base = None
    if config.model:  # looked at before an earlier output gives way
        inputs["model"] = base_identity(config.model)
        base = find_base(config.model, config.token_shards / "tokenizer")
    with begun(config.out, "pretrain", keys, inputs, console) as (work, ranks, console):
        if work.state != "done":
            _train(inside(config, work), base, work, ranks, console)
        if ranks.first:
            drop_checkpoints(config.out)
    return read(config.out)


def _train(config: PretrainConfig, base: Base | None, work: Work, ranks: Ranks, console: Console) -> None:
    """Plan, train, and leave the model directory with its artifact."""
    from groundup.data import TokenShards
    from groundup.evaluation.comparison import compare
    from groundup.hub import save_model
    from groundup.inference import Engine
    from groundup.model import Transformer, init_weights
    from groundup.model.flops import flops_per_token, parameter_count
    from groundup.optim import WarmupStableDecay
    from groundup.tokenizer import Tokenizer
    from groundup.train import SampleLog
    from groundup.train.objectives import NextToken
    from groundup.train.planner import MOST_EPOCHS, share

    tokenizer = Tokenizer.load(config.token_shards / "tokenizer")
    shards = TokenShards(config.token_shards, "train")
    held_out = TokenShards(config.token_shards, "validation")
    if ranks.first:
        shards.require_known_ids()
        held_out.require_known_ids()
    saved = SavedPlan(config.out / "plan.json", ranks)
    machine, plan = saved.read_or(
        lambda: _resolve(config, base, shards, ranks, console, seconds_spent=work.seconds),
    )
    console.table("The plan", ["", ""], plan.describe())
    if config.compile and not (machine.native or machine.compile):
        console.warn("No working C++ compiler: training runs without compilation, at less than half of the speed.")

    if base is None:
        model = Transformer(plan.model)
        init_weights(model, config.seed)
    else:
        model = base.load()
        console.note(base.sentence)
    spread = parallelize(model, machine, config.parallel, ranks)

    def loader(rows: int) -> Loader:
        return _loader(config, shards, plan.model.context_length, rows, machine, ranks)

    plan = saved.settle(machine, plan, spread, NextToken(config.z_loss), lambda rows: loader(rows).batch(0))
    rates = show_rates(config, model, plan.optimizer, console, pretraining=base is None)
    micro, accum = share(plan.rows, plan.micro_batch_size, ranks.size)
    probe = _probe(held_out)

    def scored() -> BitsPerByte:
        with spread.readable():
            return probe(model)

    before = None if base is None else scored()
    with Engine(model, tokenizer) as engine:
        progress = train(
            work,
            "pretraining",
            spread,
            NextToken(config.z_loss),
            loader(micro).batch,
            spread.optimizer(plan.optimizer),
            WarmupStableDecay(plan.total_steps, plan.warmup_steps, plan.decay_steps),
            plan_digest=plan.digest,
            total_tokens=plan.total_tokens,
            machine=machine,
            ranks=ranks,
            console=console,
            grad_accum_steps=accum,
            flops_per_step=float(plan.global_batch_tokens * flops_per_token(plan.model)),
            look=_look(engine, probe, config.sample_prompt, console, SampleLog(config.out, ranks)),
            looks=config.evaluations,
            checkpoint_seconds=config.checkpoint_seconds,
            skip_spikes=config.skip_spikes,
            end=plan.seconds,
            most_steps=plan.most_steps(MOST_EPOCHS),
            log_to=config.log_to,
        )
        compared = None if before is None else compare(scored(), before)

    model = spread.gathered()
    if not ranks.first:
        return
    files = save_model(
        config.out,
        model,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        stop_ids=base.stop_ids if base and base.stop_ids != (tokenizer.eos_id,) else (),
    )
    files += tokenizer.save(config.out)
    facts = {
        "parameters": parameter_count(plan.model),
        "flops_per_token": flops_per_token(plan.model),
        "steps": progress.step,
        "tokens_seen": progress.tokens_seen,
        "learning_rates": rates,
        "plan": plan.to_json(),
        "machine": machine.to_json(),
    }
    if compared is not None:
        console.note(f"Held-out text: {compared.sentence}")
        facts |= {"base": str(config.model), "held_out": compared.to_json()}
    work.finish(facts, [*files, saved.path])


def _resolve(
    config: PretrainConfig,
    base: Base | None,
    shards: TokenShards,
    ranks: Ranks,
    console: Console,
    *,
    seconds_spent: float,
) -> tuple[Machine, Plan]:
    """Turn the dial into a plan; for minutes, real steps are measured on this machine, by all ranks together."""
    from groundup.kernels import Machine, measure_machine
    from groundup.model import ModelConfig, Transformer, init_weights
    from groundup.train import steps_per_second
    from groundup.train.objectives import NextToken
    from groundup.train.planner import MOST_EPOCHS, Budget, Plan, plan_run

    budget = Budget(config.minutes, config.tokens, config.depth)
    console.note("Looking at the machine; the first time, kernels are compiled for it.")
    here = None
    if ranks.first:
        here = measure_machine(
            threads=config.threads, native=config.compile, compile=config.compile, fp8=config.fp8, dtype=config.dtype
        ).to_json()
    machine = Machine.from_json(ranks.told(here))
    optimizer_config = language_model_rates(config, base.config.dim if base else None)

    def speed(shape: ModelConfig, rows: int) -> float:
        """Tokens per second of real steps, of all ranks together."""
        model = Transformer(shape)
        init_weights(model, config.seed)
        spread = parallelize(model, machine, config.parallel, ranks)
        objective = NextToken(config.z_loss)

        def loader(rows: int) -> Loader:
            return _loader(config, shards, shape.context_length, rows, machine, ranks)

        rows = fitting(spread, objective, lambda rows: loader(rows).batch(0), rows, machine, ranks)
        optimizer = spread.optimizer(optimizer_config)
        steps = steps_per_second(spread.called, objective, loader(rows).batch, optimizer, ranks=ranks)
        rate = steps * rows * ranks.size * shape.context_length
        console.note(f"{shape.n_layers} layers, {shape.dim} wide: {rate:,.0f} tokens/s")
        return rate

    def measure(shape: ModelConfig, rows: int) -> float:
        ranks.told([shape.to_json(), rows])
        return speed(shape, rows)

    if not ranks.first:  # measures what the first rank wants to know, until that has its plan
        while isinstance(heard := ranks.told(None), list):
            speed(ModelConfig.from_json(heard[0]), heard[1])
        return machine, Plan.from_json(heard)
    plan = plan_run(
        budget,
        vocab_size=shards.vocab_size if base is None else base.config.vocab_size,
        given_shape=given_shape(config.shape) if base is None else base.training_shape(config.shape.context_length),
        corpus_tokens=shards.n_tokens + shards.n_documents,
        product_flops=ranks.size * machine.product_flops,
        measure=measure,
        optimizer=optimizer_config,
        memory_bytes=memory_of_a_rank(machine, config.parallel, ranks),
        seconds_spent=seconds_spent,
    )
    ranks.told(plan.to_json())
    if plan.epochs > 0.95 * MOST_EPOCHS:
        console.note(f"The text is small for this budget: {MOST_EPOCHS:g} times through it is all that still teaches.")
    return machine, plan


def _loader(
    config: PretrainConfig, shards: TokenShards, context_length: int, rows: int, machine: Machine, ranks: Ranks
) -> Loader:
    from groundup.data import Loader

    return Loader(
        shards,
        context_length=context_length,
        batch_size=rows,
        bos_id=shards.bos_id,
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.size,
        device=machine.device,
    )


def _probe(held_out: TokenShards) -> Callable[[Transformer], BitsPerByte]:
    """Scores a model on a few held-out documents."""
    import numpy as np

    from groundup.evaluation.bpb import bits_per_byte, model_nll
    from groundup.kernels import eagerly

    # Documents come in the order of their hash, so that the first ones are a random sample.
    some = range(int(np.searchsorted(np.cumsum(held_out.lengths), _PROBE_TOKENS)) + 1)[: held_out.n_documents]

    def probe(model: Transformer) -> BitsPerByte:
        with eagerly():
            return bits_per_byte(
                model_nll(model),
                held_out,
                context_length=model.config.context_length,
                bos_id=held_out.bos_id,
                subset=some,
                device=model.lm_head.weight.device,
            )

    return probe


def _look(
    engine: Engine,
    probe: Callable[[Transformer], BitsPerByte],
    prompt: str,
    console: Console,
    samples: SampleLog,
) -> Callable[[StepReport, Progress], None]:
    """What is shown on the way: bits per byte of a few held-out documents, and what the model writes now."""
    from groundup.inference import GenerationRequest, Sampling
    from groundup.kernels import eagerly

    request = GenerationRequest(prompt=prompt, sampling=Sampling(temperature=0.8), max_tokens=_SHOWN_TOKENS, seed=0)

    def look(report: StepReport, bar: Progress) -> None:
        score = probe(engine.model)
        with eagerly():
            written = engine.complete(request).text
        bar.show(bpb=f"{score.bpb:.3f}")
        console.sample(f"step {report.step:,}, {score.bpb:.3f} bits per byte: it writes", prompt + written)
        samples.add(report.step, prompt + written, bpb=score.bpb)

    return look
