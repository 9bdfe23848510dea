"""The plan of a tuning run: how often to see the examples, in what steps, at which learning rates."""

from __future__ import annotations

import math

from groundup.model import ModelConfig
from groundup.model.flops import flops_per_token
from groundup.optim import MATRIX_LR, OptimizerConfig
from groundup.train.planner.plan import OVERHEAD_FRACTION, Plan, batch_rows, share

DEFAULT_EPOCHS = 3.0
DEFAULT_RATE_SCALE = 0.3  # of pretraining's learning rates
MIN_STEPS = 50  # of a run over few examples: its steps are made smaller, down to one window
WARMUP_FRACTION = 0.05
DECAY_FRACTION = 0.8
REFERENCE_DIM = 256
ADAPTER_TIMES = 10.0  # AdamW's rate of full tuning (Schulman et al. 2025, "LoRA Without Regret")
UTILIZATION = 0.25  # of the products' speed, without compilation (4M parameters, 2 cores)
PROBE_SECONDS = 1.0  # of a step that speed is measured on; there are five
_ONE_EPOCH_TEXTS, _MIN_CLASSIFIER_EPOCHS, _MAX_CLASSIFIER_EPOCHS = 30_000, 2, 10
COMPILE_SECONDS = 60.0  # compiling takes 10 to 40 s and saves 40 % of the time: worth it for longer runs only


def tuning_rates(dim: int, scale: float, pretraining: OptimizerConfig | None = None) -> OptimizerConfig:
    """Learning rates for a model of this width: `scale` times those of pre-training, and smaller for wide models.

    AdamW's best rates fall about as 1/width (Yang et al. 2022, arXiv:2203.03466, in standard parametrization); Muon's
    here are made to fall alike, so that large models are nudged and not trained anew.
    """
    return (pretraining or OptimizerConfig()).scaled(scale * min(1.0, REFERENCE_DIM / dim))


def adapter_rates(dim: int, scale: float = DEFAULT_RATE_SCALE) -> OptimizerConfig:
    """Return the default learning rates of low-rank adapters: AdamW's, for both factors, ten times those of full
    fine-tuning at any rank; and full fine-tuning's for the embeddings of new tokens.

    Args:
        dim: width of the model.
        scale: factor on the rates of pretraining.
    """
    usual = tuning_rates(dim, scale, OptimizerConfig(matrix_lr=MATRIX_LR["adamw"]))
    return OptimizerConfig(matrix_lr=ADAPTER_TIMES * usual.matrix_lr, embedding_lr=usual.embedding_lr, matrices="adamw")


def step_rows(rows_per_epoch: int, epochs: float, context_length: int) -> tuple[int, int]:
    """Windows of a micro-batch, and micro-batches a step."""
    windows = epochs * rows_per_epoch
    micro, accum = batch_rows(windows * context_length, context_length)
    most = max(1, int(windows / MIN_STEPS))
    return min(micro, most), max(1, min(micro * accum, most) // micro)


def evenly(step: tuple[int, int], ranks: int) -> tuple[int, int]:
    """The nearest smaller step that so many ranks can share, a row each at least."""
    rows = step[0] * step[1]
    return step if rows % ranks == 0 else share(max(ranks, rows - rows % ranks), step[0], 1)


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
    """The plan of a run.

    Args:
        model: its `context_length` is the length of the windows that examples are packed into.
        rows_per_epoch: windows that hold every example once.
        step: windows of a micro-batch, and micro-batches a step.
        trained: parameters of adapters, where these alone are trained.
        warmup: share of the steps in which the learning rate rises from 0.
        decay: share of the steps in which it falls to 0.
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


def probe_rows(model: ModelConfig, matmul_flops: float, most: int) -> int:
    """Windows of a step that takes about a second: those of a large model's real steps may take half a minute each."""
    row = flops_per_token(model) * model.context_length
    return max(1, min(most, int(PROBE_SECONDS * UTILIZATION * matmul_flops / row)))


def worth_compiling(model: ModelConfig, tokens: float, matmul_flops: float, trained: int | None = None) -> bool:
    """Whether a run over so many tokens is long enough to gain from compilation."""
    return tokens * flops_per_token(model, trained=trained) > COMPILE_SECONDS * UTILIZATION * matmul_flops


def within(seconds: float, tokens_per_second: float, tokens_per_epoch: int, epochs: float) -> float:
    """As many of the wanted epochs as this time allows."""
    return min(epochs, max(0.0, seconds) * (1 - OVERHEAD_FRACTION) * tokens_per_second / tokens_per_epoch)


def classifier_epochs(n_texts: int) -> int:
    """Return the default number of epochs of a classifier: proportional to 1/sqrt(n_texts), from 10 down to 2.

    Four times the texts are seen half as often: twice the compute.
    """
    return min(_MAX_CLASSIFIER_EPOCHS, max(_MIN_CLASSIFIER_EPOCHS, round((_ONE_EPOCH_TEXTS / n_texts) ** 0.5)))
