"""Plan a fine-tuning run: choose the number of epochs, batch size, number of steps and learning rates."""

from __future__ import annotations

from groundup.model import ModelConfig
from groundup.model.flops import flops_per_token
from groundup.optim import MATRIX_LR, OptimizerConfig
from groundup.train.planner.plan import OVERHEAD_FRACTION, Plan, batch_rows, micro_batches_per_rank

DEFAULT_EPOCHS = 3.0
DEFAULT_RATE_SCALE = 0.3  # factor on the learning rates of pretraining
MIN_STEPS = 50  # minimum number of steps, for which small training sets get a smaller batch size
# LoRA learns more from more steps: 90 windows of translations (SmolLM2-135M, 270 trained tokens each) lead to 2.07
# nats per token in 90 steps of one window, and to 2.19 in 45 steps of two windows, at the same learning rate.
ADAPTER_MIN_STEPS = 200
REFERENCE_DIM = 256
# LoRA uses ten times AdamW's rate for full fine-tuning (Schulman et al. 2025, "LoRA Without Regret").
ADAPTER_RATE_FACTOR = 10.0
UTILIZATION = 0.25  # fraction of the matmul throughput that uncompiled training reaches (4M parameters, 2 cores)
MEASURED_STEP_SECONDS = 1.0  # target time of each measured step, in seconds
_ONE_EPOCH_TEXTS, _MIN_CLASSIFIER_EPOCHS, _MAX_CLASSIFIER_EPOCHS = 30_000, 2, 10
# Estimated training time above which a run is compiled. Compiling takes 10 to 40 s and saves 40 % of the training time.
COMPILE_SECONDS = 60.0


def fine_tuning_rates(dim: int, scale: float, pretraining: OptimizerConfig | None = None) -> OptimizerConfig:
    """Return the default learning rates for full fine-tuning.

    The rates are `scale` times the pretraining rates. For hidden sizes above 256, they are also multiplied by 256 /
    hidden size, because AdamW's optimal rate is about proportional to 1/width in standard parametrization (Yang
    et al. 2022, arXiv:2203.03466). Muon's rates are multiplied by the same factor, to keep the weights of large models
    near their pretrained values.

    Args:
        dim: Hidden size of the model.
        scale: Factor on the rates of pretraining.
        pretraining: Optimizer config of pretraining, or None for the default config.
    """
    return (pretraining or OptimizerConfig()).scaled(scale * min(1.0, REFERENCE_DIM / dim))


def adapter_rates(dim: int, scale: float = DEFAULT_RATE_SCALE) -> OptimizerConfig:
    """Return the default learning rates for LoRA.

    The rate of the adapters is ten times AdamW's rate for full fine-tuning, for any LoRA rank. The embeddings of new
    tokens get the rate of embeddings in full fine-tuning.

    Args:
        dim: Hidden size of the model.
        scale: Factor on the rates of pretraining.
    """
    usual = fine_tuning_rates(dim, scale, OptimizerConfig(matrix_lr=MATRIX_LR["adamw"]))
    return OptimizerConfig(
        matrix_lr=ADAPTER_RATE_FACTOR * usual.matrix_lr, embedding_lr=usual.embedding_lr, matrices="adamw"
    )


def step_rows(rows_per_epoch: int, epochs: float, context_length: int, *, adapted: bool = False) -> tuple[int, int]:
    """Return the number of packed windows per micro-batch, and the number of micro-batches per step.

    Args:
        rows_per_epoch: Number of packed windows per epoch.
        epochs: Number of epochs.
        context_length: Number of tokens per packed window.
        adapted: Whether LoRA adapters are trained.
    """
    windows = epochs * rows_per_epoch
    micro, accum = batch_rows(windows * context_length, context_length)
    max_rows = max(1, int(windows / (ADAPTER_MIN_STEPS if adapted else MIN_STEPS)))
    return min(micro, max_rows), max(1, min(micro * accum, max_rows) // micro)


def shareable_step(step: tuple[int, int], ranks: int) -> tuple[int, int]:
    """Return a training step whose number of rows is a multiple of the number of ranks.

    The rows of the given step are reduced to such a multiple if necessary, but not below one row per rank.

    Args:
        step: Number of rows per micro-batch, and number of micro-batches per step.
        ranks: Number of ranks.
    """
    rows = step[0] * step[1]
    return step if rows % ranks == 0 else micro_batches_per_rank(max(ranks, rows - rows % ranks), step[0], 1)


def fine_tuning_plan(
    model: ModelConfig,
    optimizer: OptimizerConfig,
    *,
    rows_per_epoch: int,
    epochs: float,
    step: tuple[int, int],
    lora_parameters: int | None = None,
    labeled_fraction: float = 1.0,
) -> Plan:
    """Return the plan of a fine-tuning run, without its learning-rate schedule.

    Args:
        model: Architecture, whose `context_length` is the number of tokens per packed window.
        optimizer: Optimizer config with the peak learning rates.
        rows_per_epoch: Number of packed windows per epoch.
        epochs: Number of epochs.
        step: Number of packed windows per micro-batch, and number of micro-batches per step.
        lora_parameters: Number of LoRA parameters, or None if all weights are trained.
        labeled_fraction: Fraction of the tokens that have a label.
    """
    micro, accum = step
    steps = max(1, round(epochs * rows_per_epoch / (micro * accum)))
    return Plan(
        model=model,
        optimizer=optimizer,
        micro_batch_size=micro,
        grad_accum_steps=accum,
        total_steps=steps,
        epochs=steps * micro * accum / rows_per_epoch,
        lora_parameters=lora_parameters,
        labeled_fraction=labeled_fraction,
    )


def measured_rows(model: ModelConfig, matmul_flops: float, max_rows: int) -> int:
    """Return the number of packed windows of a step that takes about one second.

    Steps of about one second are used to measure the speed, because full steps of a large model may take half a minute.

    Args:
        model: Architecture.
        matmul_flops: Matmul throughput of the machine in FLOP/s.
        max_rows: Maximum number of packed windows.
    """
    row = flops_per_token(model) * model.context_length
    return max(1, min(max_rows, int(MEASURED_STEP_SECONDS * UTILIZATION * matmul_flops / row)))


def should_compile(model: ModelConfig, tokens: float, matmul_flops: float, lora_parameters: int | None = None) -> bool:
    """Return whether a run is long enough to benefit from compilation.

    Args:
        model: Architecture.
        tokens: Number of tokens of the run.
        matmul_flops: Matmul throughput of the machine in FLOP/s.
        lora_parameters: Number of LoRA parameters, or None if all weights are trained.
    """
    flops = tokens * flops_per_token(model, lora_parameters=lora_parameters)
    return flops > COMPILE_SECONDS * UTILIZATION * matmul_flops


def affordable_epochs(seconds: float, tokens_per_second: float, tokens_per_epoch: int, epochs: float) -> float:
    """Return the number of epochs that can be trained in `seconds` seconds, but at most `epochs`."""
    return min(epochs, max(0.0, seconds) * (1 - OVERHEAD_FRACTION) * tokens_per_second / tokens_per_epoch)


def classifier_epochs(n_texts: int) -> int:
    """Return the default number of epochs for training a classifier.

    The number of epochs is proportional to 1/sqrt(n_texts), and between 2 and 10. With four times as many texts, the
    number of epochs is halved, so the compute is doubled.
    """
    return min(_MAX_CLASSIFIER_EPOCHS, max(_MIN_CLASSIFIER_EPOCHS, round((_ONE_EPOCH_TEXTS / n_texts) ** 0.5)))
