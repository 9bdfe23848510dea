"""One dial to a whole run: minutes, tokens or depth in; shape, batch, steps and learning rates out.

The rules hold for small runs as `benchmarks/ablations.md` shows, and stay with published ones beyond them.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from groundup.core.console import format_duration
from groundup.core.errors import ConfigError, ResourceError
from groundup.model import ModelConfig
from groundup.model.families import FAMILIES
from groundup.model.flops import flops_per_token, parameter_count, product_parameters, training_bytes
from groundup.optim import OptimizerConfig

# Chinchilla's 20 tokens a parameter (arXiv:2203.15556) hold where they were measured, from 1e18 FLOP on, and are what
# `--depth` trains for. Minutes on a CPU buy 1e14, and there a larger model wins at far fewer tokens.
CHINCHILLA_RATIO = 20.0
CHINCHILLA_FLOPS = 1e18
RATIO_EXPONENT = 0.3
SMALL_RUN_TOKENS = 4_000_000  # a run of this length takes steps of SMALL_BATCH_TOKENS
SMALL_BATCH_TOKENS = 8192
FEWEST_BATCH_TOKENS = 2048
FEWEST_STEPS = 16  # the shortest runs take smaller steps rather than fewer
MICRO_BATCH_TOKENS = 8192  # activations beyond this leave the caches, and gain nothing on a CPU
DEEPEST = 64
MOST_PROBES = 2
OVERHEAD = 0.06  # share of the time that goes to evaluations, samples and checkpoints on the way
ENDING = 0.01  # share of the minutes that is left for saving at the end
LEAST_SHARE = 0.5  # of its minutes that training gets, even where compiling and measuring took longer
EXPECTED_UTILIZATION = 0.5  # of the products' speed, before anything is measured
HEAD_DIM = 64
WIDTH_PER_LAYER = 64
DECAY_FRACTION = 0.6
WARMUP_FRACTION = 0.02
MOST_EPOCHS = 4.0  # repeats beyond four teach little (Muennighoff et al. 2023, arXiv:2305.16264)

Measure = Callable[[ModelConfig, int], float]
"""Tokens per second of real training steps of a shape, with micro-batches of so many rows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a run that its result depends on. Made once, saved before step 1, read by every resume."""

    model: ModelConfig
    optimizer: OptimizerConfig
    micro_batch_size: int
    grad_accum_steps: int
    total_steps: int
    warmup_steps: int
    decay_steps: int
    epochs: float
    tokens_per_second: float | None = None  # as measured before step 1
    trained: int | None = None  # parameters of adapters, where these alone are trained
    seconds: float | None = None  # that the stage has taken when training ends; its steps are then as time allows

    @property
    def rows(self) -> int:
        """Rows of one optimizer step."""
        return self.micro_batch_size * self.grad_accum_steps

    @property
    def global_batch_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.rows * self.model.context_length

    @property
    def total_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.total_steps * self.global_batch_tokens

    def most_steps(self, epochs: float) -> int:
        """Of a run that goes as often through its text."""
        return max(self.total_steps, int(epochs * self.total_steps / self.epochs))

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs of one token."""
        return flops_per_token(self.model, trained=self.trained)

    @property
    def total_flops(self) -> int:
        """Training FLOPs of the whole run."""
        return self.total_tokens * self.flops_per_token

    @property
    def digest(self) -> str:
        """Identity of the plan."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self, trained_tokens: int | None = None) -> list[tuple[str, str]]:
        """Return the plan as rows for a person to read.

        Args:
            trained_tokens: of the whole run, where not every token has a loss: the unit that progress counts in.
        """
        model = self.model
        tokens = self.total_tokens if trained_tokens is None else trained_tokens
        unit = "tokens" if trained_tokens is None else "trained tokens"
        share = tokens / self.total_tokens
        size = f"{model.n_layers} layers, {model.dim} wide, {model.n_heads} heads"
        if model.n_kv_heads != model.n_heads:
            size += f" ({model.n_kv_heads} for keys and values)"
        rows = [
            ("model", f"{model.family}, {size}, feed-forward {model.ffn_dim}"),
            ("parameters", self._parameters()),
            (
                "text",
                f"{tokens:,} {unit}, {self.epochs:.2f} epochs, {model.context_length} at once",
            ),
            (
                "steps",
                f"{self.total_steps:,} of {self.global_batch_tokens * share:,.0f} {unit}"
                + ", about" * bool(self.seconds or trained_tokens),
            ),
            ("work", f"{self.total_flops:.2e} FLOP"),
        ]
        if self.tokens_per_second:
            seconds = self.total_tokens / self.tokens_per_second
            rows.append(
                ("speed", f"{self.tokens_per_second * share:,.0f} {unit}/s measured: {seconds / 60:.1f} minutes")
            )
        if self.seconds:
            rows.append(("end", f"{format_duration(self.seconds)} after the start, with as many steps as fit"))
        return rows

    def _parameters(self) -> str:
        if self.trained is not None:
            return f"{parameter_count(self.model):,}, frozen, and {self.trained:,} of adapters, which are trained"
        return f"{parameter_count(self.model):,}, {product_parameters(self.model):,} of them in products"

    def facts(self) -> dict[str, Any]:
        """Return what the artifact of a run says of its plan, as JSON values."""
        return {
            "parameters": parameter_count(self.model),
            "flops_per_token": self.flops_per_token,
            "plan": self.to_json(),
        }

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        record = asdict(self) | {"model": self.model.to_json()}
        # So that plans of earlier releases keep their digests.
        return {key: value for key, value in record.items() if key not in ("trained", "seconds") or value is not None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """From what `to_json` gave."""
        optimizer = dict(record["optimizer"]) | {"betas": tuple(record["optimizer"]["betas"])}
        return cls(
            **dict(record)
            | {"model": ModelConfig.from_json(record["model"]), "optimizer": OptimizerConfig(**optimizer)}
        )


def shape_for_depth(depth: int, vocab_size: int, given: Mapping[str, Any]) -> ModelConfig:
    """The model of a depth: 64 features a layer, heads of 64, a feed-forward layer 8/3 as wide (without a gate: 4).

    What is derived fits what is given: a width that the heads divide, heads that the key heads divide.

    Args:
        given: fields of `ModelConfig` that are not to be derived; at least `family` and `context_length`.

    Raises:
        ConfigError: the given fields contradict each other.
    """
    family = FAMILIES[given["family"]]
    whole = family.multi_head_only
    heads = given.get("n_heads") or (given.get("n_kv_heads") if whole else None)
    dim = given.get("dim") or _multiple(WIDTH_PER_LAYER * max(2, given.get("n_layers") or depth), 2 * (heads or 1))
    if heads:
        head_dim = dim // heads if whole else max(2, dim // heads // 2 * 2)
    elif whole:  # n_heads x head_dim = dim, and rotary positions turn pairs
        step = 2 if family.positions == "rotary" else 1
        head_dim = max((size for size in range(step, HEAD_DIM + 1, step) if dim % size == 0), default=dim)
    else:
        head_dim = min(HEAD_DIM, max(2, dim // 2 * 2))
    n_heads = heads or _multiple(max(1, dim // given.get("head_dim", head_dim)), given.get("n_kv_heads", 1))
    derived = {
        "dim": dim,
        "n_layers": depth,
        "n_heads": n_heads,
        "n_kv_heads": n_heads,
        "head_dim": head_dim,
        "ffn_dim": _multiple(math.ceil(8 * dim / 3), 64) if family.gated else 4 * dim,
        "tie_embeddings": family.tie_embeddings,
    }
    return ModelConfig(**derived | dict(given) | {"vocab_size": vocab_size})


def _multiple(value: int, of: int) -> int:
    """The smallest multiple that is no smaller than the value."""
    return -(-value // of) * of


@dataclass(frozen=True, slots=True)
class Budget:
    """What sets the size of a run: exactly one of minutes, tokens and depth.

    Attributes:
        seconds_spent: Of the minutes, before planning. What measuring takes is subtracted too, but training gets
            LEAST_SHARE of its minutes in any case.
    """

    minutes: float | None = None
    tokens: int | None = None
    depth: int | None = None
    seconds_spent: float = 0.0

    def __post_init__(self) -> None:
        """Check that one is given.

        Raises:
            ConfigError: none is, or more than one.
        """
        sizes = {"minutes": self.minutes, "tokens": self.tokens, "depth": self.depth}
        given = [f"{name} = {value}" for name, value in sizes.items() if value is not None]
        if len(given) != 1:
            raise ConfigError(
                " and ".join(given) or "neither minutes, tokens nor depth",
                rule="exactly one of minutes, tokens and depth sets the size of a run",
                fix="Give one of them; an empty value takes out what a recipe gives: --set pretrain.minutes=",
            )


def batch_rows(total_tokens: float, context_length: int) -> tuple[int, int]:
    """Rows of a micro-batch and micro-batches a step for a run of `total_tokens`.

    The critical batch grows with the length of a run (McCandlish et al. 2018, arXiv:1812.06162). Growing it with the
    square root, in powers of two, is our choice; half of it gained nothing at six minutes (`benchmarks/ablations.md`).
    """
    total_tokens = max(total_tokens, 1)
    tokens = max(SMALL_BATCH_TOKENS * math.sqrt(total_tokens / SMALL_RUN_TOKENS), FEWEST_BATCH_TOKENS)
    tokens = min(tokens, total_tokens / FEWEST_STEPS)
    rows = 1 << max(0, round(math.log2(tokens / context_length)))
    most = 1 << int(math.log2(max(1, MICRO_BATCH_TOKENS // context_length)))
    micro = min(rows, most)
    return micro, rows // micro


def share(rows: int, most: int, ranks: int) -> tuple[int, int]:
    """What one of several ranks does of a step: rows of a micro-batch, `most` at the utmost, and micro-batches.

    Raises:
        ConfigError: the rows cannot be shared out evenly; their number is the plan's, not that of the ranks.
    """
    own, rest = divmod(rows, ranks)
    if rest or not own:
        possible = max(n for n in range(1, ranks + 1) if rows % n == 0)
        raise ConfigError(
            f"{ranks} ranks for steps of {rows} rows",
            rule="each rank takes as many rows of a step as the others",
            fix=f"Start {possible} ranks (torchrun --nproc-per-node {possible}), or train longer: steps grow with it.",
        )
    micro = max(n for n in range(1, min(most, own) + 1) if own % n == 0)
    return micro, own // micro


def tokens_per_parameter(flops: float) -> float:
    """How many tokens a parameter (of those in products) a run of `flops` in all should see."""
    return CHINCHILLA_RATIO * min(1.0, (flops / CHINCHILLA_FLOPS) ** RATIO_EXPONENT)


def plan_run(
    budget: Budget,
    *,
    vocab_size: int,
    given_shape: Mapping[str, Any],
    corpus_tokens: int,
    product_flops: float,
    measure: Measure,
    optimizer: OptimizerConfig,
    memory_bytes: int | None = None,
) -> Plan:
    """Derive the whole run from its budget. No plan repeats the corpus more than MOST_EPOCHS times.

    Args:
        given_shape: fields of the model that the user has decided; at least `family` and `context_length`.
        corpus_tokens: tokens of one epoch.
        product_flops: FLOP/s of the machine's matrix products; a first guess, before real steps are measured.
        measure: tokens per second of real training steps of a shape; for `minutes` only, MOST_PROBES times at most.
        memory_bytes: what the model must be trained in; None: unknown.

    Raises:
        ConfigError: the given fields contradict each other, or the depth.
        ResourceError: the model does not fit into the memory.
    """
    if budget.depth is not None and given_shape.get("n_layers", budget.depth) != budget.depth:
        raise ConfigError(
            f"depth = {budget.depth} and shape.n_layers = {given_shape['n_layers']}",
            rule="the depth is the number of layers",
            fix="Give one of the two; with shape.n_layers, give minutes or tokens beside it.",
        )

    def shape(depth: int) -> ModelConfig:
        return shape_for_depth(given_shape.get("n_layers") or depth, vocab_size, given_shape)

    most_tokens = MOST_EPOCHS * corpus_tokens
    speed = seconds = None
    if budget.depth is not None:
        depth = budget.depth
        tokens = min(CHINCHILLA_RATIO * product_parameters(shape(depth)), most_tokens)
    elif budget.tokens is not None:
        tokens = min(float(budget.tokens), most_tokens)
        depth = _deepest(shape, lambda _: tokens, memory_bytes)
    else:
        depth, tokens, speed, seconds = _timed(budget, shape, most_tokens, product_flops, measure, memory_bytes)
    config = shape(depth)
    micro, accum = _fitting(config, tokens, memory_bytes)
    steps = max(1, round(tokens / (micro * accum * config.context_length)))
    return Plan(
        model=config,
        optimizer=optimizer,
        micro_batch_size=micro,
        grad_accum_steps=accum,
        total_steps=steps,
        warmup_steps=math.ceil(WARMUP_FRACTION * steps),
        decay_steps=math.ceil(DECAY_FRACTION * steps),
        epochs=steps * micro * accum * config.context_length / corpus_tokens,
        tokens_per_second=speed,
        seconds=seconds,
    )


def _timed(
    budget: Budget,
    shape: Callable[[int], ModelConfig],
    most_tokens: float,
    product_flops: float,
    measure: Measure,
    memory_bytes: int | None,
) -> tuple[int, float, float, float]:
    """Return depth, tokens, tokens per second and the wall time at which training ends, for a budget of minutes."""
    assert budget.minutes is not None
    total = 60 * budget.minutes
    deadline = time.monotonic() + total - budget.seconds_spent
    least = LEAST_SHARE * total

    def affordable(config: ModelConfig) -> float:
        left = max(least, deadline - time.monotonic()) * (1 - OVERHEAD)
        return min(left * flops / flops_per_token(config), most_tokens)

    flops = EXPECTED_UTILIZATION * product_flops
    depth = _deepest(shape, affordable, memory_bytes)
    measured: dict[int, float] = {}
    while depth not in measured:  # its speed may allow another depth than was guessed
        config = shape(depth)
        micro, _ = _fitting(config, affordable(config), memory_bytes)
        measured[depth] = measure(config, micro)
        flops = measured[depth] * flops_per_token(config)
        if len(measured) < MOST_PROBES and deadline - time.monotonic() > least:
            depth = _deepest(shape, affordable, memory_bytes)
    end = total + max(0.0, least - (deadline - time.monotonic())) - ENDING * total
    return depth, affordable(shape(depth)), measured[depth], end


def _deepest(
    shape: Callable[[int], ModelConfig], tokens: Callable[[ModelConfig], float], memory_bytes: int | None
) -> int:
    """The deepest model that its tokens are enough for and that fits into the memory; at least 2 layers."""
    depth = 2
    for candidate in range(3, DEEPEST + 1):
        config = shape(candidate)
        seen = tokens(config)
        if seen < tokens_per_parameter(seen * flops_per_token(config)) * product_parameters(config):
            break
        if memory_bytes is not None and training_bytes(config, 1) > memory_bytes:
            break
        depth = candidate
    return depth


def _fitting(config: ModelConfig, total_tokens: float, memory_bytes: int | None) -> tuple[int, int]:
    """`batch_rows`, with micro-batches that fit into the memory.

    Raises:
        ResourceError: not even one row does.
    """
    micro, accum = batch_rows(total_tokens, config.context_length)
    while memory_bytes is not None and training_bytes(config, micro) > memory_bytes:
        if micro == 1:
            raise ResourceError(
                f"{parameter_count(config):,} parameters: about {training_bytes(config, 1) / 1e9:,.1f} GB to train",
                rule=f"the model must fit into the memory here, {memory_bytes / 1e9:,.1f} GB",
                fix="Choose a smaller shape, a shorter context_length or a smaller depth.",
            )
        micro, accum = micro // 2, accum * 2
    return micro, accum
