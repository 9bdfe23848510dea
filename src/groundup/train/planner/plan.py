"""Plan a run from its budget: minutes, tokens or depth determine architecture, batch size, steps and learning rates.

`benchmarks/ablations.md` shows the measurements for small runs; beyond them, the rules follow published ones.
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
from groundup.model.flops import flops_per_token, matmul_parameters, parameter_count, training_bytes
from groundup.optim import OptimizerConfig

# Chinchilla's 20 tokens per parameter (arXiv:2203.15556) were measured from 1e18 FLOPs on; `--depth` uses them. Minutes
# on a CPU give 1e14 FLOPs, where a larger model with far fewer tokens is better.
CHINCHILLA_RATIO = 20.0
CHINCHILLA_FLOPS = 1e18
RATIO_EXPONENT = 0.3
SMALL_RUN_TOKENS = 4_000_000  # a run of this length uses batches of SMALL_BATCH_TOKENS
SMALL_BATCH_TOKENS = 8192
MIN_BATCH_TOKENS = 2048
MIN_STEPS = 16  # shorter runs use smaller batches
MICRO_BATCH_TOKENS = 8192  # larger activations do not fit into CPU caches
MAX_DEPTH = 64
MAX_MEASUREMENTS = 2
OVERHEAD_FRACTION = 0.06  # fraction of the time for evaluations, samples and checkpoints
SAVE_FRACTION = 0.01  # fraction of the minutes that is reserved for the final save
MIN_TRAINING_FRACTION = 0.5  # minimum fraction of the minutes, even if compiling and measuring take longer
EXPECTED_UTILIZATION = 0.5  # of the matmul throughput, before anything is measured
HEAD_DIM = 64
WIDTH_PER_LAYER = 64
DECAY_FRACTION = 0.6
WARMUP_FRACTION = 0.02
MAX_EPOCHS = 4.0  # more epochs add little (Muennighoff et al. 2023, arXiv:2305.16264)

Measure = Callable[[ModelConfig, int], float]
"""Function from an architecture and the rows of a micro-batch to the tokens per second of real training steps."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that determines the result of a run. It is saved before step 1; a resumed run reads it.

    Attributes:
        model: Architecture.
        optimizer: Learning rates before the schedule.
        micro_batch_size: Rows of a micro-batch.
        grad_accum_steps: Micro-batches per optimizer step.
        total_steps: Optimizer steps.
        warmup_steps: Steps of linear warmup.
        decay_steps: Steps of linear decay to 0.
        epochs: Passes over the data.
        tokens_per_second: Throughput measured before step 1.
        trained: Number of LoRA parameters, if only adapters are trained.
        seconds: Time after the start of the command at which training ends; total_steps is then an estimate.
    """

    model: ModelConfig
    optimizer: OptimizerConfig
    micro_batch_size: int
    grad_accum_steps: int
    total_steps: int
    warmup_steps: int
    decay_steps: int
    epochs: float
    tokens_per_second: float | None = None
    trained: int | None = None
    seconds: float | None = None

    @property
    def rows(self) -> int:
        """Rows per optimizer step."""
        return self.micro_batch_size * self.grad_accum_steps

    @property
    def global_batch_tokens(self) -> int:
        """Tokens per optimizer step."""
        return self.rows * self.model.context_length

    @property
    def total_tokens(self) -> int:
        """Tokens of the run."""
        return self.total_steps * self.global_batch_tokens

    def max_steps_for(self, epochs: float) -> int:
        """Return the number of steps for this many epochs, at least `total_steps`."""
        return max(self.total_steps, int(epochs * self.total_steps / self.epochs))

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs per token."""
        return flops_per_token(self.model, trained=self.trained)

    @property
    def total_flops(self) -> int:
        """Training FLOPs of the run."""
        return self.total_tokens * self.flops_per_token

    @property
    def digest(self) -> str:
        """Fingerprint of the plan."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self, trained_tokens: int | None = None) -> list[tuple[str, str]]:
        """Return the plan as table rows of a name and a value.

        Args:
            trained_tokens: Number of tokens of the run that have a loss; None: all tokens do.
        """
        model = self.model
        tokens = self.total_tokens if trained_tokens is None else trained_tokens
        unit = "tokens" if trained_tokens is None else "trained tokens"
        fraction = tokens / self.total_tokens
        estimated = "about " * bool(self.seconds or trained_tokens)
        kv_heads = [("KV heads", f"{model.n_kv_heads}")] * (model.n_kv_heads != model.n_heads)
        rows = [
            ("model family", model.family),
            ("layers", f"{model.n_layers}"),
            ("hidden size", f"{model.dim}"),
            ("attention heads", f"{model.n_heads}"),
            *kv_heads,
            ("FFN size", f"{model.ffn_dim}"),
            ("context length", f"{model.context_length:,}"),
            *self._parameters(),
            (unit, f"{tokens:,}"),
            ("epochs", f"{self.epochs:.2f}"),
            ("batch size", f"{estimated}{self.global_batch_tokens * fraction:,.0f} {unit} per step"),
            ("optimizer steps", f"{estimated}{self.total_steps:,}"),
            ("compute", f"{self.total_flops:.2e} FLOPs"),
        ]
        if self.tokens_per_second:
            seconds = self.total_tokens / self.tokens_per_second
            rows.append(("throughput", f"{self.tokens_per_second * fraction:,.0f} {unit}/s (measured)"))
            rows.append(("estimated time", f"{seconds / 60:.1f} minutes"))
        if self.seconds:
            rows.append(("time limit", f"{format_duration(self.seconds)} from the start of the command"))
        return rows

    def _parameters(self) -> list[tuple[str, str]]:
        total = ("parameters", f"{parameter_count(self.model):,}")
        if self.trained is not None:
            return [total, ("trainable parameters (LoRA)", f"{self.trained:,}")]
        return [total, ("matmul parameters", f"{matmul_parameters(self.model):,} (non-embedding)")]

    def facts(self) -> dict[str, Any]:
        """Return the plan as JSON values for the artifact of a run."""
        return {
            "parameters": parameter_count(self.model),
            "flops_per_token": self.flops_per_token,
            "plan": self.to_json(),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        record = asdict(self) | {"model": self.model.to_json()}
        # Fields that were added later are omitted at their defaults, so that earlier plans keep their digests.
        return {key: value for key, value in record.items() if key not in ("trained", "seconds") or value is not None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_json` recorded."""
        optimizer = dict(record["optimizer"]) | {"betas": tuple(record["optimizer"]["betas"])}
        return cls(
            **dict(record)
            | {"model": ModelConfig.from_json(record["model"]), "optimizer": OptimizerConfig(**optimizer)}
        )


def shape_for_depth(depth: int, vocab_size: int, given: Mapping[str, Any]) -> ModelConfig:
    """Return the architecture for a number of layers.

    Defaults: hidden size 64 per layer, head dimension 64, FFN size 8/3 of the hidden size (4 in MLPs without gating).
        Derived
    values are rounded so that head counts divide evenly.

    Args:
        depth: Number of layers.
        vocab_size: Vocabulary size.
        given: Fields of `ModelConfig` that are not derived; at least `family` and `context_length`.

    Raises:
        ConfigError: The given fields contradict each other.
    """
    family = FAMILIES[given["family"]]
    whole = family.multi_head_only
    heads = given.get("n_heads") or (given.get("n_kv_heads") if whole else None)
    dim = given.get("dim") or _multiple(WIDTH_PER_LAYER * max(2, given.get("n_layers") or depth), 2 * (heads or 1))
    if heads:
        head_dim = dim // heads if whole else max(2, dim // heads // 2 * 2)
    elif whole:  # head_dim must divide dim and, for RoPE, be even
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
    """Round up to a multiple."""
    return -(-value // of) * of


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of a run: exactly one of minutes, tokens and depth.

    Attributes:
        minutes: Wall-clock time of the command.
        tokens: Number of training tokens.
        depth: Number of layers.
        seconds_spent: Time spent before planning. It is subtracted from the minutes, as is the time of measurements,
            but training gets at least MIN_TRAINING_FRACTION of the minutes.
    """

    minutes: float | None = None
    tokens: int | None = None
    depth: int | None = None
    seconds_spent: float = 0.0

    def __post_init__(self) -> None:
        """Check that exactly one is set.

        Raises:
            ConfigError: None or several are set.
        """
        sizes = {"minutes": self.minutes, "tokens": self.tokens, "depth": self.depth}
        given = [f"{name} = {value}" for name, value in sizes.items() if value is not None]
        if len(given) != 1:
            raise ConfigError(
                " and ".join(given) or "minutes, tokens and depth are all unset",
                rule="exactly one of minutes, tokens and depth sets the size of a run",
                fix="Set one of them. To unset a value of the recipe: --set pretrain.minutes=",
            )


def batch_rows(total_tokens: float, context_length: int) -> tuple[int, int]:
    """Return rows per micro-batch and micro-batches per step for a run of `total_tokens`.

    The critical batch size grows with the length of a run (McCandlish et al. 2018, arXiv:1812.06162). The square root
    and the powers of two are our choice; half the batch size was not better at six minutes (`benchmarks/ablations.md`).

    Args:
        total_tokens: Tokens of the run.
        context_length: Tokens per row.
    """
    total_tokens = max(total_tokens, 1)
    tokens = max(SMALL_BATCH_TOKENS * math.sqrt(total_tokens / SMALL_RUN_TOKENS), MIN_BATCH_TOKENS)
    tokens = min(tokens, total_tokens / MIN_STEPS)
    rows = 1 << max(0, round(math.log2(tokens / context_length)))
    max_rows = 1 << int(math.log2(max(1, MICRO_BATCH_TOKENS // context_length)))
    micro = min(rows, max_rows)
    return micro, rows // micro


def micro_batches_per_rank(rows: int, max_rows: int, ranks: int) -> tuple[int, int]:
    """Return a rank's part of a step: rows per micro-batch, at most `max_rows`, and micro-batches.

    Args:
        rows: Rows per step over all ranks.
        max_rows: Maximum number of rows per micro-batch.
        ranks: Number of ranks.

    Raises:
        ConfigError: The number of ranks does not divide the rows.
    """
    own, rest = divmod(rows, ranks)
    if rest or not own:
        possible = max(n for n in range(1, ranks + 1) if rows % n == 0)
        raise ConfigError(
            f"{ranks} ranks cannot share steps of {rows} rows evenly",
            fix=f"Start {possible} ranks (torchrun --nproc-per-node {possible}), or train longer for larger batches.",
        )
    micro = max(n for n in range(1, min(max_rows, own) + 1) if own % n == 0)
    return micro, own // micro


def tokens_per_parameter(flops: float) -> float:
    """Return the number of training tokens per matmul parameter for a run of `flops` FLOPs."""
    return CHINCHILLA_RATIO * min(1.0, (flops / CHINCHILLA_FLOPS) ** RATIO_EXPONENT)


def plan_run(
    budget: Budget,
    *,
    vocab_size: int,
    given_shape: Mapping[str, Any],
    corpus_tokens: int,
    matmul_flops: float,
    measure: Measure,
    optimizer: OptimizerConfig,
    memory_bytes: int | None = None,
) -> Plan:
    """Plan a run of at most MAX_EPOCHS epochs from its budget.

    Args:
        budget: Minutes, tokens or depth.
        vocab_size: Vocabulary size.
        given_shape: Fields of the model that the user has set; at least `family` and `context_length`.
        corpus_tokens: Tokens per epoch.
        matmul_flops: Matmul throughput of the machine in FLOP/s, used until training steps are measured.
        measure: Returns tokens per second of an architecture; used for `minutes`, at most MAX_MEASUREMENTS times.
        optimizer: Learning rates before the schedule.
        memory_bytes: Available memory; None: unknown.

    Raises:
        ConfigError: The given fields contradict each other, or the depth.
        ResourceError: The model does not fit into memory.
    """
    _require_one_depth(budget, given_shape)

    def shape(depth: int) -> ModelConfig:
        return shape_for_depth(given_shape.get("n_layers") or depth, vocab_size, given_shape)

    max_tokens = MAX_EPOCHS * corpus_tokens
    speed = seconds = None
    if budget.depth is not None:
        depth = budget.depth
        tokens = min(CHINCHILLA_RATIO * matmul_parameters(shape(depth)), max_tokens)
    elif budget.tokens is not None:
        tokens = min(float(budget.tokens), max_tokens)
        depth = _deepest(shape, lambda _: tokens, memory_bytes)
    else:
        depth, tokens, speed, seconds = _timed(budget, shape, max_tokens, matmul_flops, measure, memory_bytes)
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


def _require_one_depth(budget: Budget, given_shape: Mapping[str, Any]) -> None:
    if budget.depth is not None and given_shape.get("n_layers", budget.depth) != budget.depth:
        raise ConfigError(
            f"depth = {budget.depth} and shape.n_layers = {given_shape['n_layers']} are both the number of layers",
            fix="Set one of them; with shape.n_layers, set minutes or tokens as well.",
        )


def _timed(
    budget: Budget,
    shape: Callable[[int], ModelConfig],
    max_tokens: float,
    matmul_flops: float,
    measure: Measure,
    memory_bytes: int | None,
) -> tuple[int, float, float, float]:
    """Return depth, tokens, tokens per second and end time of training, for a budget of minutes."""
    assert budget.minutes is not None
    total = 60 * budget.minutes
    deadline = time.monotonic() + total - budget.seconds_spent
    least = MIN_TRAINING_FRACTION * total

    def affordable(config: ModelConfig) -> float:
        left = max(least, deadline - time.monotonic()) * (1 - OVERHEAD_FRACTION)
        return min(left * flops / flops_per_token(config), max_tokens)

    flops = EXPECTED_UTILIZATION * matmul_flops
    depth = _deepest(shape, affordable, memory_bytes)
    measured: dict[int, float] = {}
    while depth not in measured:  # the measured speed may allow another depth than the estimated one
        config = shape(depth)
        micro, _ = _fitting(config, affordable(config), memory_bytes)
        measured[depth] = measure(config, micro)
        flops = measured[depth] * flops_per_token(config)
        if len(measured) < MAX_MEASUREMENTS and deadline - time.monotonic() > least:
            depth = _deepest(shape, affordable, memory_bytes)
    end = total + max(0.0, least - (deadline - time.monotonic())) - SAVE_FRACTION * total
    return depth, affordable(shape(depth)), measured[depth], end


def _deepest(
    shape: Callable[[int], ModelConfig], tokens: Callable[[ModelConfig], float], memory_bytes: int | None
) -> int:
    """Return the largest depth with enough training tokens that fits into memory; at least 2."""
    depth = 2
    for candidate in range(3, MAX_DEPTH + 1):
        config = shape(candidate)
        seen = tokens(config)
        if seen < tokens_per_parameter(seen * flops_per_token(config)) * matmul_parameters(config):
            break
        if memory_bytes is not None and training_bytes(config, 1) > memory_bytes:
            break
        depth = candidate
    return depth


def _fitting(config: ModelConfig, total_tokens: float, memory_bytes: int | None) -> tuple[int, int]:
    """Return `batch_rows` with micro-batches that fit into memory.

    Raises:
        ResourceError: A single row does not fit.
    """
    micro, accum = batch_rows(total_tokens, config.context_length)
    while memory_bytes is not None and training_bytes(config, micro) > memory_bytes:
        if micro == 1:
            raise ResourceError(
                f"training {parameter_count(config):,} parameters needs about {training_bytes(config, 1) / 1e9:,.1f} "
                f"GB of memory, but {memory_bytes / 1e9:,.1f} GB are available",
                fix="Choose a smaller shape, a shorter context_length or a smaller depth.",
            )
        micro, accum = micro // 2, accum * 2
    return micro, accum
