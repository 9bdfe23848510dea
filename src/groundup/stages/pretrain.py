"""`groundup pretrain`: token shards to a base model, trained from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from groundup.artifact import Artifact, begin, read
from groundup.config import Config, setting
from groundup.console import Console
from groundup.errors import ConfigError
from groundup.stages._training import drop_checkpoints, train

if TYPE_CHECKING:
    from collections.abc import Callable

    from groundup.console import Progress
    from groundup.generate import Engine
    from groundup.parallel import Machine
    from groundup.planner import Plan
    from groundup.tokens import Loader, TokenShards
    from groundup.train import StepReport

_PROBE_TOKENS = 16_384  # of held-out text, scored on the way: 1 to 2 seconds
_SHOWN_TOKENS = 60


class ShapeConfig(Config):
    """The model. What is left out follows from the budget: 64 features a layer, heads of 64, SwiGLU 8/3 as wide."""

    family: Literal["qwen3", "llama", "gpt2"] = setting("qwen3", help="qwen3, llama or gpt2")
    context_length: int = setting(512, help="tokens that the model sees at once", ge=2)
    dim: int | None = setting(None, help="width of the residual stream", gt=0)
    n_layers: int | None = setting(None, help="layers", gt=0)
    n_heads: int | None = setting(None, help="query heads", gt=0)
    n_kv_heads: int | None = setting(None, help="key and value heads; fewer than n_heads saves memory", gt=0)
    head_dim: int | None = setting(None, help="features of a head", gt=0)
    ffn_dim: int | None = setting(None, help="width inside the feed-forward layer", gt=0)
    rope_theta: float | None = setting(None, help="base of the rotary frequencies", gt=0)
    norm_eps: float | None = setting(None, help="added to the variance in norms", gt=0)
    tie_embeddings: bool | None = setting(None, help="one matrix to embed and to score tokens")


class PretrainConfig(Config):
    """One dial (minutes, tokens or depth); the rest is derived, printed and saved in plan.json before step 1."""

    token_shards: Path = setting(help="what groundup tokenize left", positional=True)
    out: Path = setting(help="directory for the model", flag=True)
    minutes: float | None = setting(None, help="train for this long on this machine", flag=True, gt=0)
    tokens: int | None = setting(None, help="train on this many tokens", flag=True, gt=0)
    depth: int | None = setting(None, help="train this many layers, 20 tokens a parameter", flag=True, gt=0)
    seed: int = setting(0, help="of the first weights and the order of documents", flag=True, ge=0)
    shape: ShapeConfig = setting(ShapeConfig(), help="the model, as far as you want to decide it")
    optimizer: Literal["muon", "adamw"] = setting("muon", help="of the matrices inside the layers: muon or adamw")
    matrix_lr: float | None = setting(None, help="theirs; default: 0.02 for muon, 0.002 for adamw", gt=0)
    embedding_lr: float = setting(0.01, help="AdamW's, for the token embeddings", gt=0)
    head_lr: float = setting(0.003, help="AdamW's, for the output matrix", gt=0)
    vector_lr: float = setting(0.003, help="AdamW's, for norms and biases", gt=0)
    threads: int | None = setting(None, help="CPU threads; default: one a core", gt=0)
    compile: bool = setting(True, help="compile the layers; needs a C++ compiler, else runs without")
    checkpoint_seconds: float = setting(30.0, help="save the state of the run this often", ge=0)
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
        return self


def run(config: PretrainConfig, *, console: Console | None = None) -> Artifact:
    """Train a model until its plan is done; a run that was cut off goes on from its last checkpoint.

    Raises:
        DataError: no token shards there.
        ConfigError: a shape that cannot be.
        ResourceError: a model too large for the memory here.
        TrainingError: it diverged.
    """
    console = console or Console()
    keys = config.model_dump(mode="json", exclude={"token_shards", "out", "checkpoint_seconds"})
    work = begin(config.out, "pretrain", keys, {"tokens": read(config.token_shards).digest}, console=console)
    if work.state == "done":
        drop_checkpoints(config.out)
        return read(config.out)

    from groundup.checkpoint import save_model
    from groundup.files import read_json, write_json
    from groundup.generate import Engine
    from groundup.model import Transformer, init_weights
    from groundup.objectives import NextToken
    from groundup.optim import Optimizer, WarmupStableDecay
    from groundup.parallel import Machine, place
    from groundup.planner import Plan, flops_per_token, parameter_count
    from groundup.tokenizer import Tokenizer
    from groundup.tokens import TokenShards

    tokenizer = Tokenizer.load(config.token_shards / "tokenizer")
    shards = TokenShards(config.token_shards, "train")
    held_out = TokenShards(config.token_shards, "validation")
    plan_file = config.out / "plan.json"
    if not plan_file.is_file():
        machine, plan = _resolve(config, shards, console, seconds_spent=work.seconds)
        write_json(plan_file, {"machine": machine.to_json(), "plan": plan.to_json()})
    saved = read_json(plan_file)
    machine, plan = Machine.from_json(saved["machine"]), Plan.from_json(saved["plan"])
    console.table("The plan", ["", ""], plan.describe())
    if not machine.compile and config.compile:
        console.warn("No working C++ compiler: training runs without compilation, at about two thirds of the speed.")

    model = Transformer(plan.model)
    init_weights(model, config.seed)
    place(model, machine)
    optimizer = Optimizer(model, plan.optimizer)
    with Engine(model, tokenizer) as engine:
        progress = train(
            work,
            "pretraining",
            model,
            NextToken(),
            _loader(shards, plan.model.context_length, plan.micro_batch_size, config.seed).batch,
            optimizer,
            WarmupStableDecay(plan.total_steps, plan.warmup_steps, plan.decay_steps),
            plan_digest=plan.digest,
            total_tokens=plan.total_tokens,
            console=console,
            grad_accum_steps=plan.grad_accum_steps,
            look=_look(engine, held_out, config.sample_prompt, console),
            looks=config.evaluations,
            checkpoint_seconds=config.checkpoint_seconds,
        )

    files = save_model(config.out, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(config.out)
    facts = {
        "parameters": parameter_count(plan.model),
        "flops_per_token": flops_per_token(plan.model),
        "tokens_seen": progress.tokens_seen,
        "plan": plan.to_json(),
        "machine": machine.to_json(),
    }
    outputs = [*files, config.out / "tokenizer.json", config.out / "tokenizer_config.json", plan_file]
    made = work.finish(facts, outputs)
    drop_checkpoints(config.out)
    return made


def _resolve(
    config: PretrainConfig, shards: TokenShards, console: Console, *, seconds_spent: float
) -> tuple[Machine, Plan]:
    """Turn the dial into a plan; for minutes, real steps are measured on this machine."""
    from groundup.model import ModelConfig, Transformer, init_weights
    from groundup.objectives import NextToken
    from groundup.optim import MATRIX_LR, Optimizer, OptimizerConfig
    from groundup.parallel import measure_machine, memory_bytes, place
    from groundup.planner import MOST_EPOCHS, Budget, plan_run
    from groundup.train import steps_per_second

    budget = Budget(config.minutes, config.tokens, config.depth)
    console.note("Looking at the machine; the first time, kernels are compiled for it.")
    machine = measure_machine(threads=config.threads, compile=config.compile)
    optimizer_config = OptimizerConfig(
        matrix_lr=config.matrix_lr or MATRIX_LR[config.optimizer],
        embedding_lr=config.embedding_lr,
        head_lr=config.head_lr,
        vector_lr=config.vector_lr,
        matrices=config.optimizer,
    )

    def measure(shape: ModelConfig, rows: int) -> float:
        """Tokens per second of real steps."""
        model = Transformer(shape)
        init_weights(model, config.seed)
        place(model, machine)
        batches = _loader(shards, shape.context_length, rows, config.seed).batch
        rate = steps_per_second(model, NextToken(), batches, Optimizer(model, optimizer_config))
        console.note(f"{shape.n_layers} layers, {shape.dim} wide: {rate * rows * shape.context_length:,.0f} tokens/s")
        return rate * rows * shape.context_length

    plan = plan_run(
        budget,
        vocab_size=shards.vocab_size,
        given_shape=config.shape.model_dump(exclude_none=True),
        corpus_tokens=shards.n_tokens + shards.n_documents,
        product_flops=machine.product_flops,
        measure=measure,
        optimizer=optimizer_config,
        memory_bytes=memory_bytes(machine.device),
        seconds_spent=seconds_spent,
    )
    if plan.epochs > 0.95 * MOST_EPOCHS:
        console.note(f"The text is small for this budget: {MOST_EPOCHS:g} times through it is all that still teaches.")
    return machine, plan


def _loader(shards: TokenShards, context_length: int, rows: int, seed: int) -> Loader:
    from groundup.tokens import Loader

    return Loader(shards, context_length=context_length, batch_size=rows, bos_id=shards.bos_id, seed=seed)


def _look(
    engine: Engine, held_out: TokenShards, prompt: str, console: Console
) -> Callable[[StepReport, Progress], None]:
    """What is shown on the way: bits per byte of a few held-out documents, and what the model writes now."""
    import numpy as np

    from groundup.evals.bpb import bits_per_byte, model_nll
    from groundup.generate import GenerationRequest, Sampling
    from groundup.parallel import eagerly

    # Documents come in the order of their hash, so that the first ones are a random sample.
    probe = range(int(np.searchsorted(np.cumsum(held_out.lengths), _PROBE_TOKENS)) + 1)
    request = GenerationRequest(prompt=prompt, sampling=Sampling(temperature=0.8), max_tokens=_SHOWN_TOKENS, seed=0)

    def look(report: StepReport, bar: Progress) -> None:
        model = engine.model
        with eagerly():
            score = bits_per_byte(
                model_nll(model),
                held_out,
                context_length=model.config.context_length,
                bos_id=held_out.bos_id,
                subset=probe[: held_out.n_documents],
            )
            written = engine.complete(request).text
        bar.show(bpb=f"{score.bpb:.3f}")
        console.sample(f"step {report.step:,}, {score.bpb:.3f} bits per byte: it writes", prompt + written)

    return look
