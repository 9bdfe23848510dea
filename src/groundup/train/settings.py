"""Settings that are shared by several training commands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from groundup.core.config import Config, setting
from groundup.train.fine_tuning_method import LoraConfig, Method
from groundup.train.initial_model import ShapeConfig
from groundup.train.learning_rates import OptimizerSettings

TrackerName = Literal["tensorboard", "wandb", "trackio"]

# An interrupted run can resume with other values of these settings, because they do not affect the result.
NOT_IN_FINGERPRINT = frozenset(
    {"out", "checkpoint_seconds", "parallel", "report_to", "allow_high_learning_rate", "preview"}
)


class ParallelConfig(Config):
    """Data parallelism across the ranks that `torchrun` starts, which does not change the global batch size."""

    mode: Literal["ddp", "fsdp"] | None = setting(
        None, help="ddp replicates the model, fsdp shards it; default: ddp if each rank can easily hold the model"
    )
    activation_checkpointing: bool = setting(
        False, help="recompute activations in the backward pass; saves memory for a third more compute"
    )


class TrainingSettings(OptimizerSettings):
    """Settings for optimizer, precision, data parallelism, checkpoints and logs of a training run."""

    seed: int = setting(0, help="random seed", flag=True, ge=0)
    threads: int | None = setting(None, help="number of CPU threads; default: one per core", gt=0)
    dtype: Literal["float32", "bfloat16"] | None = setting(None, help="dtype of matmuls; default: the faster dtype")
    parallel: ParallelConfig = setting(ParallelConfig(), help="data parallelism across the ranks of torchrun")
    ema_fraction: float = setting(
        0.0, help="average the weights (EMA) over about this fraction of the steps; 0: do not average", ge=0, le=1
    )
    checkpoint_seconds: float = setting(
        30.0, help="seconds between checkpoints, or more if saving is slow; 0 saves after every step", ge=0
    )
    skip_loss_spikes: bool = setting(True, help="skip optimizer steps whose loss is far above the recent losses")
    report_to: tuple[TrackerName, ...] = setting((), help="experiment trackers to log to: tensorboard, wandb, trackio")


class PretrainingSettings(TrainingSettings):
    """Settings for length, architecture, batch size, schedule and regularization of a pretraining run."""

    minutes: float | None = setting(None, help="training time on this machine, in minutes", flag=True, gt=0)
    tokens: int | None = setting(None, help="number of training tokens", flag=True, gt=0)
    depth: int | None = setting(None, help="number of layers; training uses 20 tokens per parameter", flag=True, gt=0)
    shape: ShapeConfig = setting(ShapeConfig(), help="architecture of the model; keys that are not set are derived")
    compile: bool = setting(True, help="use torch.compile if a C++ compiler is installed")
    fp8: bool = setting(False, help="use fp8 matmuls in the layers, if the GPU supports fp8 (pip: groundup[fp8])")
    max_epochs: float | None = setting(
        None, help="maximum number of epochs; default: as many as improve the model", flag=True, gt=0
    )
    global_batch_tokens: int | None = setting(
        None,
        help="number of tokens per step; default: grows with the length of the run, up to 8 epochs",
        gt=0,
    )
    warmup_ratio: float = setting(0.02, help="fraction of steps with linear warmup of the learning rate", ge=0, le=1)
    decay_ratio: float = setting(0.6, help="fraction of steps with linear decay of the learning rate to 0", ge=0, le=1)
    dropout: float = setting(0.0, help="dropout of attention and MLP", ge=0, lt=1)
    token_dropout: float | None = setting(
        None, help="probability of omitting an input token; default: chosen from epochs and size", ge=0, lt=1
    )
    short_context_ratio: float = setting(
        0.0, help="fraction of planned steps with contexts of a quarter, then half, of context_length", ge=0, le=1
    )
    num_teachers: int | None = setting(
        None, help="number of models with other seeds to train first, as teachers; default: from time and text", ge=0
    )
    teachers: tuple[Path, ...] = setting((), help="trained models whose mean probabilities the model learns")
    teacher_weight: float = setting(0.9, help="weight of the teachers in the loss", gt=0, le=1)
    z_loss: float = setting(0.0, help="coefficient of the z-loss, the squared log of the softmax denominator", ge=0)


class FineTuningSettings(TrainingSettings):
    """Settings for base model, method and length of a fine-tuning run."""

    model: Path = setting(help="base model: a model or run directory", flag=True)
    out: Path = setting(help="output directory for the fine-tuned model", flag=True)
    num_epochs: float | None = setting(
        None, help="number of epochs; default: 3, or 2 to 10 for a classifier", flag=True, gt=0
    )
    minutes: float | None = setting(None, help="maximum training time on this machine, in minutes", flag=True, gt=0)
    method: Method | None = setting(
        None,
        help="full: train all weights; lora: train adapters; merged: train and merge adapters; default: by model size",
        flag=True,
    )
    lora: LoraConfig = setting(LoraConfig(), help="settings of LoRA adapters, for the methods lora and merged")
    warmup_ratio: float = setting(0.05, help="fraction of steps with linear warmup of the learning rate", ge=0, le=1)
    decay_ratio: float = setting(0.8, help="fraction of steps with linear decay of the learning rate to 0", ge=0, le=1)
    early_stopping_patience: int | None = setting(
        None, help="number of validation scores (of 20) without improvement after which training stops", ge=1
    )
    preview: bool = setting(False, help="show which tokens are trained, and exit", flag=True)
