"""Plan a pretraining run: choose the architecture, batch size and number of steps for a budget.

The budget is a number of minutes, a number of tokens, or a depth. The size of the model and the number of epochs are
chosen with a scaling law (`groundup.train.planner.law`). The rules for the batch size are based on the measurements in
`benchmarks/ablations.md`.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from groundup.core.console import format_duration
from groundup.core.errors import ConfigError, ResourceError
from groundup.model import ModelConfig
from groundup.model.flops import flops_per_token, matmul_parameters, parameter_count, training_bytes
from groundup.optim import OptimizerConfig, WarmupStableDecay
from groundup.train.planner.forecast import Forecast, distillation_runs
from groundup.train.planner.law import WEIGHT_DECAY
from groundup.train.planner.sizes import Sizes

CHINCHILLA_RATIO = 20.0  # tokens per parameter of `--depth` (Hoffmann et al. 2022, arXiv:2203.15556)
# A run of D tokens uses a batch size of BATCH_FACTOR * D ** BATCH_EXPONENT tokens. The exponent is that of the Step Law
# (Li et al. 2025, arXiv:2503.04715), whose factor is 0.58.
BATCH_FACTOR, BATCH_EXPONENT = 0.75, 0.571
MIN_BATCH_TOKENS = 1024
MIN_STEPS = 16  # minimum number of steps, for which short runs get a smaller batch size
MICRO_BATCH_TOKENS = 8192  # maximum tokens per micro-batch, because larger activations do not fit into CPU caches
MAX_MEASUREMENTS = 2
_MIN_MEASURED_SECONDS = 60.0  # estimated time above which a run without a time limit is measured, too
OVERHEAD_FRACTION = 0.06  # fraction of the training time for evaluations, samples and checkpoints
SAVE_FRACTION = 0.01  # fraction of the time budget that is reserved for saving the model
MIN_TRAINING_FRACTION = 0.5  # minimum fraction of the time budget for training, even if compiling takes long
_TOKEN_DROPOUT_PER_EPOCH = 0.02
_MAX_TOKEN_DROPOUT = 0.3
_MIN_REPEATS = 3  # epochs below which there is no token dropout
_OVERFITTING = 40.0  # repeated epochs times parameters per token, from which a model needs the whole token dropout
EXPECTED_UTILIZATION = 0.5  # fraction of the matmul throughput that is assumed before steps are measured

Measure = Callable[[ModelConfig, int], float]
"""Function of (architecture, rows per micro-batch) that measures training steps and returns tokens per second."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Architecture, batch size, number of steps and optimizer config of a run.

    The plan is saved before step 1, and a resumed run loads the saved plan.

    Attributes:
        model: Architecture.
        optimizer: Optimizer config with the peak learning rates.
        micro_batch_size: Number of rows per micro-batch.
        grad_accum_steps: Number of micro-batches per optimizer step.
        total_steps: Number of optimizer steps.
        epochs: Number of epochs.
        warmup_steps: Number of steps with linear warmup of the learning rate.
        decay_steps: Number of steps with linear decay of the learning rate to 0.
        tokens_per_second: Throughput that was measured before step 1, or None if no measurement was made.
        lora_parameters: Number of LoRA parameters, or None if all weights are trained.
        labeled_fraction: Fraction of the tokens that have a label. The logits of other tokens are not computed.
        seconds: Wall time of the command, in seconds, at which training should end, or None if there is no time limit.
            If there is a time limit, `total_steps` is an estimate.
        max_epochs: Maximum number of epochs if there is a time limit, otherwise None.
        dropout: Dropout probability.
        token_dropout: Token dropout.
        num_teachers: Number of models with other seeds that are trained first, see `groundup.train.teachers`.
        bits_per_byte: Predicted bits per byte of held-out text and the bounds of its 90 % interval, or None if the
            prediction does not apply.
    """

    model: ModelConfig
    optimizer: OptimizerConfig
    micro_batch_size: int
    grad_accum_steps: int
    total_steps: int
    epochs: float
    warmup_steps: int = 0
    decay_steps: int = 0
    tokens_per_second: float | None = None
    lora_parameters: int | None = None
    labeled_fraction: float = 1.0
    seconds: float | None = None
    max_epochs: float | None = None
    dropout: float = 0.0
    token_dropout: float = 0.0
    num_teachers: int = 0
    bits_per_byte: tuple[float, float, float] | None = None

    @property
    def rows(self) -> int:
        """Number of rows per optimizer step."""
        return self.micro_batch_size * self.grad_accum_steps

    @property
    def global_batch_tokens(self) -> int:
        """Number of tokens per optimizer step."""
        return self.rows * self.model.context_length

    @property
    def total_tokens(self) -> int:
        """Number of tokens of the run."""
        return self.total_steps * self.global_batch_tokens

    @property
    def schedule(self) -> WarmupStableDecay:
        """Learning-rate schedule."""
        return WarmupStableDecay(self.total_steps, self.warmup_steps, self.decay_steps)

    def with_schedule(self, warmup_ratio: float, decay_ratio: float) -> Plan:
        """Return the plan with a learning-rate schedule, see `WarmupStableDecay.from_ratios`."""
        schedule = WarmupStableDecay.from_ratios(self.total_steps, warmup_ratio, decay_ratio)
        return replace(self, warmup_steps=schedule.warmup_steps, decay_steps=schedule.decay_steps)

    def max_steps_for(self, epochs: float) -> int:
        """Return the number of steps in `epochs` epochs, but at least `total_steps`."""
        return max(self.total_steps, int(epochs * self.total_steps / self.epochs))

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs per token."""
        flops = flops_per_token(self.model, lora_parameters=self.lora_parameters)
        head = (6 if self.lora_parameters is None else 4) * self.model.vocab_size * self.model.dim
        return flops - round((1 - self.labeled_fraction) * head)

    @property
    def total_flops(self) -> int:
        """Training FLOPs of the run."""
        return self.total_tokens * self.flops_per_token

    @property
    def digest(self) -> str:
        """Fingerprint of the plan, as a hexadecimal string."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def describe(self, trained_tokens: int | None = None) -> list[tuple[str, str]]:
        """Return the plan as a table with the columns name and value.

        Args:
            trained_tokens: Number of tokens of the run that contribute to the loss (default: all tokens).
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
            seconds = self.total_tokens / self.tokens_per_second * distillation_runs(self.num_teachers)
            rows.append(("throughput", f"{self.tokens_per_second * fraction:,.0f} {unit}/s (measured)"))
            rows.append(("estimated time", f"{seconds / 60:.1f} minutes"))
        if self.num_teachers:
            rows.insert(-1, ("teachers", f"{self.num_teachers}, trained first"))
        if self.bits_per_byte:
            value, low, high = self.bits_per_byte
            rows.append(("predicted", f"{value:.3f} bits per byte of held-out text ({low:.2f} to {high:.2f})"))
        if self.seconds:
            rows.append(("time limit", f"{format_duration(self.seconds)} from the start of the command"))
        return rows

    def _parameters(self) -> list[tuple[str, str]]:
        total = ("parameters", f"{parameter_count(self.model):,}")
        if self.lora_parameters is not None:
            return [total, ("trainable parameters (LoRA)", f"{self.lora_parameters:,}")]
        return [total, ("matmul parameters", f"{matmul_parameters(self.model):,} (non-embedding)")]

    def facts(self) -> dict[str, Any]:
        """Return the plan and its costs as JSON values, for `artifact.json`."""
        return {
            "parameters": parameter_count(self.model),
            "flops_per_token": self.flops_per_token,
            "plan": self.to_json(),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return asdict(self) | {"model": self.model.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """Return the plan from the result of `to_json`."""
        optimizer = dict(record["optimizer"]) | {"betas": tuple(record["optimizer"]["betas"])}
        changed: dict[str, Any] = {
            "model": ModelConfig.from_json(record["model"]),
            "optimizer": OptimizerConfig(**optimizer),
        }
        if predicted := record["bits_per_byte"]:
            changed["bits_per_byte"] = tuple(predicted)
        return cls(**dict(record) | changed)


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of a run. Exactly one of `minutes`, `tokens` and `depth` must be set.

    Attributes:
        minutes: Wall time of the command in minutes.
        tokens: Number of training tokens.
        depth: Number of layers.
        seconds_spent: Time in seconds that the command took before planning, which is subtracted from the time budget.
            The time for measuring steps is subtracted from the time budget, too. However, training gets at least the
            fraction `MIN_TRAINING_FRACTION` of the budget.
        max_epochs: Maximum number of epochs, or None for as many as are useful according to the scaling law.
        global_batch_tokens: Number of tokens per step, or None to derive it from the length of the run, of
            which at most 8 epochs count.
        num_teachers: Number of models with other seeds that are trained first, or None for `Forecast.with_teachers` if
            the budget is in minutes.
    """

    minutes: float | None = None
    tokens: int | None = None
    depth: int | None = None
    seconds_spent: float = 0.0
    max_epochs: float | None = None
    global_batch_tokens: int | None = None
    num_teachers: int | None = 0

    def __post_init__(self) -> None:
        """Check that exactly one of `minutes`, `tokens` and `depth` is set.

        Raises:
            ConfigError: None of these values or several of them are set.
        """
        sizes = {"minutes": self.minutes, "tokens": self.tokens, "depth": self.depth}
        given = [f"{name} = {value}" for name, value in sizes.items() if value is not None]
        if len(given) != 1:
            raise ConfigError(
                " and ".join(given) or "minutes, tokens and depth are all unset",
                rule="exactly one of minutes, tokens and depth sets the size of a run",
                fix="Set one of them. To unset a value of the recipe: --set pretrain.minutes=",
            )


def batch_rows(total_tokens: float, context_length: int, batch_tokens: int | None = None) -> tuple[int, int]:
    """Return the rows per micro-batch, and the micro-batches per step, for a run of `total_tokens` tokens.

    The critical batch size grows with the length of a run (McCandlish et al. 2018, arXiv:1812.06162). The batch size
    follows the Step Law (Li et al. 2025, arXiv:2503.04715), and the number of rows is rounded to a power of two. In
    runs of a minute, twice this batch size is worse (`benchmarks/ablations.md`).

    Args:
        total_tokens: Number of tokens of the run.
        context_length: Number of tokens per row.
        batch_tokens: Number of tokens per step, which is rounded to full rows. None derives it from `total_tokens`.
    """
    if batch_tokens is not None:
        rows = max(1, round(batch_tokens / context_length))
        return micro_batches_per_rank(rows, max(1, MICRO_BATCH_TOKENS // context_length), 1)
    total_tokens = max(total_tokens, 1)
    tokens = max(BATCH_FACTOR * total_tokens**BATCH_EXPONENT, MIN_BATCH_TOKENS)
    tokens = min(tokens, total_tokens / MIN_STEPS)
    rows = 1 << max(0, round(math.log2(tokens / context_length)))
    max_rows = 1 << int(math.log2(max(1, MICRO_BATCH_TOKENS // context_length)))
    micro = min(rows, max_rows)
    return micro, rows // micro


def micro_batches_per_rank(rows: int, max_rows: int, ranks: int) -> tuple[int, int]:
    """Return the rows per micro-batch, and the micro-batches per step, on each rank.

    Args:
        rows: Number of rows per step, summed over all ranks.
        max_rows: Maximum number of rows per micro-batch.
        ranks: Number of ranks.

    Raises:
        ConfigError: The number of ranks does not divide the number of rows.
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


def plan_run(
    budget: Budget,
    *,
    vocab_size: int,
    given_shape: Mapping[str, Any],
    forecast: Forecast,
    matmul_flops: float,
    measure: Measure,
    optimizer: OptimizerConfig,
    memory_bytes: int | None = None,
) -> Plan:
    """Plan a run for a budget.

    Args:
        budget: Minutes, tokens or depth.
        vocab_size: Vocabulary size.
        given_shape: Fields of `ModelConfig` that override the derived values, including `family` and `context_length`.
        forecast: Scaling law and training text.
        matmul_flops: Matmul throughput of all ranks in FLOP/s, used until the speed of training steps is measured.
        measure: Returns the measured tokens per second of an architecture, if the budget is in minutes or the run
            is long. At most `MAX_MEASUREMENTS` architectures are measured.
        optimizer: Optimizer config with the peak learning rates.
        memory_bytes: Available memory in bytes, or None if unknown.

    Raises:
        ConfigError: The given fields contradict each other or the depth of the budget.
        ResourceError: The model does not fit into memory.
    """
    _require_one_depth(budget, given_shape)
    sizes = Sizes(vocab_size, given_shape, forecast, budget.max_epochs, memory_bytes)
    timed = None
    if budget.depth is not None:
        depth = budget.depth
        tokens = sizes.useful_tokens(sizes.shape(depth), CHINCHILLA_RATIO * matmul_parameters(sizes.shape(depth)))
    elif budget.tokens is not None:
        depth = sizes.depth_for_tokens(budget.tokens)
        tokens = sizes.useful_tokens(sizes.shape(depth), budget.tokens)
    else:
        timed = _timed(budget, sizes, matmul_flops, measure)
        depth, tokens = timed.depth, timed.tokens
    config = sizes.shape(depth)
    micro, accum = _fitting(config, forecast.batch_size_tokens(tokens), memory_bytes, budget.global_batch_tokens)
    speed = timed and timed.tokens_per_second
    if not speed and tokens * flops_per_token(config) > _MIN_MEASURED_SECONDS * EXPECTED_UTILIZATION * matmul_flops:
        speed = measure(config, micro)
    steps = max(1, round(tokens / (micro * accum * config.context_length)))
    epochs = steps * micro * accum * config.context_length / forecast.tokens
    return Plan(
        model=config,
        optimizer=optimizer,
        micro_batch_size=micro,
        grad_accum_steps=accum,
        total_steps=steps,
        epochs=epochs,
        tokens_per_second=speed,
        seconds=timed and timed.seconds,
        max_epochs=timed and max(epochs, timed.max_tokens / forecast.tokens),
        num_teachers=timed.num_teachers if timed else budget.num_teachers or 0,
    )


def regularized(
    plan: Plan,
    *,
    weight_decay: float | None = None,
    embedding_weight_decay: float | None = None,
    dropout: float = 0.0,
    token_dropout: float | None = None,
) -> Plan:
    """Return a pretraining plan with regularization.

    Args:
        plan: Plan of the run.
        weight_decay: Weight decay of the layers, or None for `WEIGHT_DECAY`.
        embedding_weight_decay: Weight decay of embeddings and head, or None for the weight decay of the layers.
        dropout: Dropout probability.
        token_dropout: Token dropout, or None for `planned_token_dropout`.
    """
    decay = WEIGHT_DECAY if weight_decay is None else weight_decay
    return replace(
        plan,
        optimizer=replace(
            plan.optimizer,
            weight_decay=decay,
            embedding_weight_decay=decay if embedding_weight_decay is None else embedding_weight_decay,
        ),
        dropout=dropout,
        token_dropout=planned_token_dropout(plan) if token_dropout is None else token_dropout,
    )


def planned_token_dropout(plan: Plan) -> float:
    """Return the token dropout of a plan, which grows with the number of epochs and with the size of the model.

    A model with several parameters per token of its text overfits: on 1 MB, masking input tokens reduced the bits per
    byte by 0.09 to 0.11 in addition to weight decay. A model with fewer parameters than tokens does not overfit, and
    token dropout increased its bits per byte (`benchmarks/ablations.md`).
    """
    if plan.epochs < _MIN_REPEATS:
        return 0.0
    unique_tokens = plan.total_tokens / plan.epochs
    repeated_fits = (plan.epochs - 1) * matmul_parameters(plan.model) / unique_tokens
    highest = min(_MAX_TOKEN_DROPOUT, _TOKEN_DROPOUT_PER_EPOCH * plan.epochs)
    return round(highest * min(1.0, repeated_fits / _OVERFITTING), 3)


def _require_one_depth(budget: Budget, given_shape: Mapping[str, Any]) -> None:
    if budget.depth is not None and given_shape.get("n_layers", budget.depth) != budget.depth:
        raise ConfigError(
            f"depth = {budget.depth} and shape.n_layers = {given_shape['n_layers']} set different numbers of layers",
            fix="Remove depth or shape.n_layers. If you keep shape.n_layers, set minutes or tokens.",
        )


class _Timed(NamedTuple):
    """Size of a run with a budget in minutes.

    Attributes:
        depth: Number of layers.
        tokens: Planned number of tokens.
        max_tokens: Maximum number of tokens, if training is faster than measured.
        tokens_per_second: Measured throughput.
        seconds: Wall time of the command at which training should end.
        num_teachers: Number of teachers.
    """

    depth: int
    tokens: float
    max_tokens: float
    tokens_per_second: float
    seconds: float
    num_teachers: int


def _timed(budget: Budget, sizes: Sizes, matmul_flops: float, measure: Measure) -> _Timed:
    """Choose the size of a run with a budget in minutes, from measured training steps."""
    assert budget.minutes is not None
    total, runs = 60 * budget.minutes, distillation_runs(budget.num_teachers or 0)
    deadline = time.monotonic() + total - budget.seconds_spent
    least = MIN_TRAINING_FRACTION * total

    measured: dict[int, float] = {}

    def affordable(config: ModelConfig) -> float:
        left = max(least, deadline - time.monotonic()) * (1 - OVERHEAD_FRACTION) / runs
        closest = min(measured, key=lambda depth: abs(depth - config.n_layers), default=None)
        shape = config if closest is None else sizes.shape(closest)
        flops = EXPECTED_UTILIZATION * matmul_flops if closest is None else measured[closest] * flops_per_token(shape)
        return sizes.limit(left * flops / flops_per_token(config))

    teaches = budget.num_teachers is None
    depth = sizes.best_depth(affordable, teaches=teaches)
    while depth in sizes.shapes and depth not in measured:
        config = sizes.shape(depth)
        tokens = sizes.forecast.batch_size_tokens(affordable(config))
        micro, _ = _fitting(config, tokens, sizes.memory_bytes, budget.global_batch_tokens)
        measured[depth] = measure(config, micro)
        if len(measured) < MAX_MEASUREMENTS and deadline - time.monotonic() > least:
            depth = sizes.best_depth(affordable, teaches=teaches)
            # The speed of another size is only an estimate, and usually the utilization of a larger model is higher.
            if depth in measured:
                depth += 1
    depth = sizes.best_depth(affordable, measured, teaches=teaches)
    end = total + max(0.0, least - (deadline - time.monotonic())) - SAVE_FRACTION * total
    config = sizes.shape(depth)
    most = affordable(config)
    tokens = sizes.useful_tokens(config, most)
    max_tokens = sizes.max_tokens(config, tokens, most)
    teachers = budget.num_teachers or 0
    if teaches:
        tokens, teachers = sizes.forecast.with_teachers(config, most)
        max_tokens = tokens if teachers else max_tokens
    return _Timed(depth, tokens, max_tokens, measured[depth], end, teachers)


def _fitting(
    config: ModelConfig, total_tokens: float, memory_bytes: int | None, batch_tokens: int | None
) -> tuple[int, int]:
    """Return the result of `batch_rows`, with smaller micro-batches if they do not fit into memory.

    Raises:
        ResourceError: A micro-batch with a single row does not fit into memory.
    """
    micro, accum = batch_rows(total_tokens, config.context_length, batch_tokens)
    while memory_bytes is not None and training_bytes(config, micro) > memory_bytes:
        if micro == 1:
            raise ResourceError(
                f"training {parameter_count(config):,} parameters needs about {training_bytes(config, 1) / 1e9:,.1f} "
                f"GB of memory, but {memory_bytes / 1e9:,.1f} GB are available",
                fix="Choose a smaller shape, a shorter context_length or a smaller depth.",
            )
        micro, accum = micro_batches_per_rank(micro * accum, micro - 1, 1)
    return micro, accum
