"""Plan fine-tuning: epochs, batch size, steps and learning rates."""

from __future__ import annotations

import math

from groundup.model import ModelConfig
from groundup.model.flops import flops_per_token
from groundup.optim import MATRIX_LR, OptimizerConfig
from groundup.train.planner.plan import OVERHEAD_FRACTION, Plan, batch_rows, micro_batches_per_rank

DEFAULT_EPOCHS = 3.0
DEFAULT_RATE_SCALE = 0.3  # relative to the learning rates of pretraining
MIN_STEPS = 50  # with few examples, the batch size is reduced, down to one window
WARMUP_FRACTION = 0.05
DECAY_FRACTION = 0.8
REFERENCE_DIM = 256
ADAPTER_RATE_FACTOR = 10.0  # relative to AdamW's rate of full fine-tuning (Schulman et al. 2025, "LoRA Without Regret")
UTILIZATION = 0.25  # of the matmul throughput, uncompiled (4M parameters, 2 cores)
MEASURED_STEP_SECONDS = 1.0  # maximum time of each of the five measured steps
_ONE_EPOCH_TEXTS, _MIN_CLASSIFIER_EPOCHS, _MAX_CLASSIFIER_EPOCHS = 30_000, 2, 10
COMPILE_SECONDS = 60.0  # compilation takes 10 to 40 s and saves 40 % of the time


def tuning_rates(dim: int, scale: float, pretraining: OptimizerConfig | None = None) -> OptimizerConfig:
    """Return the learning rates for fine-tuning: `scale` times the pretraining rates, smaller for large hidden sizes.

    AdamW's best rates fall about as 1/width (Yang et al. 2022, arXiv:2203.03466, in standard parametrization). Muon's
    rates are scaled in the same way, so that large models change little.

    Args:
        dim: Hidden size of the model.
        scale: Factor on the rates of pretraining.
        pretraining: Rates of pretraining; None: the default ones.
    """
    return (pretraining or OptimizerConfig()).scaled(scale * min(1.0, REFERENCE_DIM / dim))


def adapter_rates(dim: int, scale: float = DEFAULT_RATE_SCALE) -> OptimizerConfig:
    """Return the default learning rates of LoRA adapters: ten times AdamW's rate of full fine-tuning, at any rank.

    The embeddings of new tokens get the rate of full fine-tuning.

    Args:
        dim: Hidden size of the model.
        scale: Factor on the rates of pretraining.
    """
    usual = tuning_rates(dim, scale, OptimizerConfig(matrix_lr=MATRIX_LR["adamw"]))
    return OptimizerConfig(
        matrix_lr=ADAPTER_RATE_FACTOR * usual.matrix_lr, embedding_lr=usual.embedding_lr, matrices="adamw"
    )


def step_rows(rows_per_epoch: int, epochs: float, context_length: int) -> tuple[int, int]:
    """Return windows per micro-batch, and micro-batches per step."""
    windows = epochs * rows_per_epoch
    micro, accum = batch_rows(windows * context_length, context_length)
    max_rows = max(1, int(windows / MIN_STEPS))
    return min(micro, max_rows), max(1, min(micro * accum, max_rows) // micro)


def shareable_step(step: tuple[int, int], ranks: int) -> tuple[int, int]:
    """Return the next smaller step that the ranks can share evenly, with at least a row per rank."""
    rows = step[0] * step[1]
    return step if rows % ranks == 0 else micro_batches_per_rank(max(ranks, rows - rows % ranks), step[0], 1)


def plan_tuning(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    *,
    rows_per_epoch: int,
    epochs: float,
    step: tuple[int, int],
    trained: int | None = None,
    warmup: float = WARMUP_FRACTION,
    decay: float = DECAY_FRACTION,
) -> Plan:
    """Return the plan of a fine-tuning run.

    Args:
        model: Architecture; its `context_length` is the length of the packed windows.
        optimizer: Learning rates before the schedule.
        rows_per_epoch: Packed windows per epoch.
        epochs: Passes over the examples.
        step: Windows per micro-batch, and micro-batches per step.
        trained: Number of LoRA parameters, if only adapters are trained.
        warmup: Fraction of steps with linear warmup of the learning rate.
        decay: Fraction of steps with linear decay to 0.
    """
    micro, accum = step
    steps = max(1, round(epochs * rows_per_epoch / (micro * accum)))
    return Plan(
        model=model,
        optimizer=optimizer,
        micro_batch_size=micro,
        grad_accum_steps=accum,
        total_steps=steps,
        warmup_steps=math.ceil(warmup * steps),
        decay_steps=math.ceil(decay * steps),
        epochs=steps * micro * accum / rows_per_epoch,
        trained=trained,
    )


def measured_rows(model: ModelConfig, matmul_flops: float, max_rows: int) -> int:
    """Return the windows of a step of about a second; real steps of a large model may take half a minute."""
    row = flops_per_token(model) * model.context_length
    return max(1, min(max_rows, int(MEASURED_STEP_SECONDS * UTILIZATION * matmul_flops / row)))


def should_compile(model: ModelConfig, tokens: float, matmul_flops: float, trained: int | None = None) -> bool:
    """Return whether a run of this many tokens is long enough to benefit from compilation."""
    return tokens * flops_per_token(model, trained=trained) > COMPILE_SECONDS * UTILIZATION * matmul_flops


def affordable_epochs(seconds: float, tokens_per_second: float, tokens_per_epoch: int, epochs: float) -> float:
    """Return the number of epochs that this time allows, at most `epochs`."""
    return min(epochs, max(0.0, seconds) * (1 - OVERHEAD_FRACTION) * tokens_per_second / tokens_per_epoch)


def classifier_epochs(n_texts: int) -> int:
    """Return the default number of epochs of a classifier: proportional to 1/sqrt(n_texts), from 10 down to 2.

    Four times as many texts get half as many epochs, which is twice the compute.
    """
    return min(_MAX_CLASSIFIER_EPOCHS, max(_MIN_CLASSIFIER_EPOCHS, round((_ONE_EPOCH_TEXTS / n_texts) ** 0.5)))
