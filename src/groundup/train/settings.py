"""Settings that several training commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from groundup.core.config import Config, setting
from groundup.train.adapters import LoraConfig, Method
from groundup.train.learning_rates import OptimizerSettings

TrackerName = Literal["tensorboard", "wandb", "trackio"]

# Settings that do not change the result of a run.
NOT_IN_FINGERPRINT = frozenset({"out", "checkpoint_seconds", "parallel", "report_to", "allow_high_learning_rate"})


class ParallelConfig(Config):
    """How the ranks that `torchrun` starts share a batch; the global batch is the same for any number of ranks."""

    mode: Literal["ddp", "fsdp"] | None = setting(
        None, help="ddp: replicate the model; fsdp: shard it; default: ddp if the model fits easily"
    )
    activation_checkpointing: bool = setting(False, help="save memory by recomputing activations: a third more compute")


class TrainingSettings(OptimizerSettings):
    """Optimizer, precision, ranks, checkpoints and logs of a training run."""

    renamed: ClassVar[Mapping[str, str]] = {
        **OptimizerSettings.renamed,
        "skip_spikes": "skip_loss_spikes",
        "log_to": "report_to",
        "evaluations": "num_evaluations",
    }

    seed: int = setting(0, help="random seed", flag=True, ge=0)
    threads: int | None = setting(None, help="number of CPU threads; default: one per core", gt=0)
    dtype: Literal["float32", "bfloat16"] | None = setting(None, help="dtype of matmuls; default: the faster one")
    parallel: ParallelConfig = setting(ParallelConfig(), help="data parallelism across the ranks of torchrun")
    checkpoint_seconds: float = setting(
        30.0, help="seconds between checkpoints, at most 5 % of the time; 0: after every step", ge=0
    )
    skip_loss_spikes: bool = setting(True, help="skip optimizer steps whose loss is far above the recent losses")
    report_to: tuple[TrackerName, ...] = setting((), help="experiment trackers: tensorboard, wandb, trackio")


class FineTuningSettings(TrainingSettings):
    """Model, method and length of a fine-tuning run."""

    renamed: ClassVar[Mapping[str, str]] = {
        **TrainingSettings.renamed,
        "epochs": "num_epochs",
        "patience": "early_stopping_patience",
        "cut_long": "truncate",
        "set_apart": "validation_fraction",
        "test_examples": "max_test_examples",
        "replay_share": "replay_fraction",
    }

    model: Path = setting(help="base model: a model or run directory", flag=True)
    out: Path = setting(help="output directory for the fine-tuned model", flag=True)
    num_epochs: float | None = setting(
        None, help="number of epochs; default: 3 (classifiers: by size)", flag=True, gt=0
    )
    minutes: float | None = setting(None, help="maximum training time on this machine, in minutes", flag=True, gt=0)
    method: Method | None = setting(
        None, help="full: train all weights; lora: save adapters; merged: merge them; default: by model size", flag=True
    )
    lora: LoraConfig = setting(LoraConfig(), help="LoRA adapters of the methods lora and merged")
    warmup_ratio: float = setting(0.05, help="fraction of steps with linear warmup of the learning rate", ge=0, le=1)
    decay_ratio: float = setting(0.8, help="fraction of steps with linear decay to 0; 0: constant rate", ge=0, le=1)
    early_stopping_patience: int | None = setting(
        None, help="stop after this many evaluations (of 20) without a new best score", ge=1
    )
    xray: bool = setting(False, help="show the training examples and exit", flag=True)
