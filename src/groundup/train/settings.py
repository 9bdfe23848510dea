"""Settings that every training command shares, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from groundup.core.config import Config, setting
from groundup.train.adapters import LoraConfig, Method
from groundup.train.learning_rates import OptimizerSettings

TrackerName = Literal["tensorboard", "wandb", "trackio"]

# Settings that change where and how a run is computed and watched, not its result.
NOT_IN_FINGERPRINT = frozenset({"out", "checkpoint_seconds", "parallel", "log_to", "allow_high_learning_rate"})


class ParallelConfig(Config):
    """How the ranks that `torchrun` starts share the work; a step has the same batch for any number of them."""

    mode: Literal["ddp", "fsdp"] | None = setting(
        None, help="ddp: each rank holds the whole model; fsdp: its share; default: ddp where that easily fits"
    )
    activation_checkpointing: bool = setting(False, help="keep fewer activations, at a third more computation")


class TrainingSettings(OptimizerSettings):
    """Optimizer, precision, ranks, checkpoints and logs of a training run."""

    seed: int = setting(0, help="random seed", flag=True, ge=0)
    threads: int | None = setting(None, help="CPU threads; default: one a core", gt=0)
    dtype: Literal["float32", "bfloat16"] | None = setting(None, help="dtype of matrix products; default: the faster")
    parallel: ParallelConfig = setting(ParallelConfig(), help="how the ranks that torchrun starts share the work")
    checkpoint_seconds: float = setting(
        30.0, help="save the run this often, or as often as takes 5 % of its time; 0: after every step", ge=0
    )
    skip_spikes: bool = setting(True, help="skip steps whose loss is far above those before")
    log_to: tuple[TrackerName, ...] = setting((), help="draw curves with tensorboard, wandb or trackio, too")


class FineTuningSettings(TrainingSettings):
    """Model, method and length of a fine-tuning run."""

    model: Path = setting(help="model to start from: a directory, or a run", flag=True)
    out: Path = setting(help="directory for the fine-tuned model", flag=True)
    epochs: float | None = setting(None, help="passes over the examples; default: shown", flag=True, gt=0)
    minutes: float | None = setting(None, help="train no longer than this on this machine", flag=True, gt=0)
    method: Method | None = setting(None, help="all weights, or adapters; default: by size", flag=True)
    lora: LoraConfig = setting(LoraConfig(), help="the adapters of method = lora or merged")
    warmup_ratio: float = setting(0.05, help="share of the steps in which the rate rises from 0", ge=0, le=1)
    decay_ratio: float = setting(0.8, help="share of the steps in which it falls to 0; 0: constant rate", ge=0, le=1)
    patience: int | None = setting(None, help="end after this many of 20 scores without a new best", ge=1)
    xray: bool = setting(False, help="show what would be trained, and stop", flag=True)
