"""Optimizer settings of the training commands, default learning rates, and the table printed before step 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from groundup.optim import GroupRate, MatrixOptimizer, OptimizerConfig

OptimizerName = Literal["muon", "adamw"]

_HIGH = 0.1  # no supported optimizer is stable at this rate
_LARGEST_DEFAULT = 0.02  # for learning_rate_scale = 1
_RATES = ("learning_rate", "embedding_learning_rate", "head_learning_rate", "norm_learning_rate")


def _rate(help: str, *, flag: bool = False) -> Any:
    return setting(None, help=help, flag=flag, gt=0, allow_inf_nan=False)


class OptimizerSettings(Config):
    """Optimizer and learning rates; rates are absolute, as in PyTorch, transformers and TRL."""

    renamed: ClassVar[Mapping[str, str]] = {
        "matrix_lr": "learning_rate",
        "embedding_lr": "embedding_learning_rate",
        "head_lr": "head_learning_rate",
        "vector_lr": "norm_learning_rate",
    }

    optimizer: OptimizerName | None = setting(
        None, help="optimizer of 2-D weights; default: muon (LoRA: adamw)", flag=True
    )
    learning_rate: float | None = _rate("peak learning rate; default: by model, printed before training", flag=True)
    learning_rate_scale: float | None = _rate(
        "factor on the default pretraining rates, instead of learning_rate; default: 0.3 (random weights: 1)"
    )
    embedding_learning_rate: float | None = _rate(
        "AdamW learning rate of the embeddings; default: learning_rate, scaled if the optimizer is muon"
    )
    head_learning_rate: float | None = _rate("AdamW learning rate of the head; default: as embedding_learning_rate")
    norm_learning_rate: float | None = _rate("AdamW learning rate of norms and biases; default: as the embeddings")
    allow_high_learning_rate: bool = setting(False, help="allow learning rates of 0.1 or more")
    adam_beta1: float = setting(0.9, help="AdamW beta1: decay rate of the first moment", ge=0, lt=1)
    adam_beta2: float = setting(0.95, help="AdamW beta2: decay rate of the second moment", ge=0, lt=1)
    adam_epsilon: float = setting(1e-10, help="AdamW epsilon", gt=0, lt=1)

    @model_validator(mode="after")
    def _check_rates(self) -> OptimizerSettings:
        scale, method = self.learning_rate_scale, getattr(self, "method", None)
        if scale and self.learning_rate:
            raise ConfigError(
                f"learning_rate = {self.learning_rate:g} and learning_rate_scale = {scale:g} are both set",
                rule="the scale multiplies the default rates, which learning_rate replaces",
                fix="Remove one of them.",
            )
        if self.optimizer == "muon" and method in ("lora", "merged"):
            raise muon_for_adapters(method)
        rates = {name: rate for name in _RATES if (rate := getattr(self, name)) is not None}
        high = [f"{name} = {rate:g}" for name, rate in rates.items() if rate >= _HIGH]
        if scale and scale * _LARGEST_DEFAULT >= _HIGH:
            high.append(f"learning_rate_scale = {scale:g}")
        if high and not self.allow_high_learning_rate:
            raise ConfigError(
                high[0],
                rule=f"a learning rate of {_HIGH:g} or more nearly always diverges; usual rates are 1e-6 to 0.001 "
                "(AdamW), 1e-4 to 0.01 (LoRA) and 1e-4 to 0.05 (Muon)",
                fix="Set a smaller rate, or scale the default rates with learning_rate_scale. To train at this rate, "
                "add --set allow_high_learning_rate=true.",
            )
        return self


def muon_for_adapters(method: str) -> ConfigError:
    """Return the error for Muon with LoRA."""
    return ConfigError(
        f"optimizer = muon with method = {method}",
        rule="Muon updates full weight matrices; LoRA adapters are trained with AdamW",
        fix="Remove optimizer, or train all weights: --method full.",
    )


def language_model_rates(
    settings: OptimizerSettings, dim: int | None = None, *, adapted: bool = False
) -> OptimizerConfig:
    """Return the optimizer of pretraining and instruction tuning.

    Args:
        settings: Settings of the run.
        dim: Hidden size of the base model (larger models get lower default rates); None: random weights.
        adapted: Whether LoRA adapters are trained instead of all weights.

    Returns:
        The default learning rates, overridden by the settings.
    """
    from groundup.optim import MATRIX_LR, OptimizerConfig
    from groundup.train.planner.tuning import DEFAULT_RATE_SCALE, adapter_rates, tuning_rates

    name: MatrixOptimizer = settings.optimizer or "muon"
    usual = OptimizerConfig(MATRIX_LR[name], matrices=name)
    scale = settings.learning_rate_scale
    if dim is None:
        usual = usual.scaled(scale or 1)
    elif adapted:
        usual = adapter_rates(dim, scale or DEFAULT_RATE_SCALE)
    else:
        usual = tuning_rates(dim, scale or DEFAULT_RATE_SCALE, usual)
    return _chosen(settings, usual)


def classifier_rates(
    settings: OptimizerSettings, *, dim: int, adapted: bool, weight_decay: float = 0.0
) -> OptimizerConfig:
    """Return the optimizer of a classifier.

    Args:
        settings: Settings of the run; `learning_rate_scale` multiplies the default rates of classifiers.
        dim: Hidden size of the base model.
        adapted: Whether LoRA adapters are trained instead of all weights.
        weight_decay: Decoupled weight decay of the 2-D weights in the layers.

    Returns:
        The default learning rates, overridden by the settings.
    """
    from groundup.optim import MATRIX_LR
    from groundup.train.planner.rates import CLASSIFIER
    from groundup.train.planner.tuning import adapter_rates

    usual = replace(CLASSIFIER, weight_decay=weight_decay)
    if adapted:
        usual = replace(adapter_rates(dim), head_lr=CLASSIFIER.head_lr)
    elif settings.optimizer == "adamw":
        matrix = CLASSIFIER.matrix_lr * MATRIX_LR["adamw"] / MATRIX_LR["muon"]
        usual = replace(usual, matrix_lr=matrix, matrices="adamw")
    return _chosen(settings, usual.scaled(settings.learning_rate_scale or 1))


def _chosen(settings: OptimizerSettings, usual: OptimizerConfig) -> OptimizerConfig:
    """Replace default rates by the rates in the settings."""
    rates = usual if settings.learning_rate is None else usual.with_learning_rate(settings.learning_rate)
    own: dict[str, Any] = {
        "embedding_lr": settings.embedding_learning_rate,
        "head_lr": settings.head_learning_rate,
        "vector_lr": settings.norm_learning_rate,
    }
    return replace(
        rates,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        **{name: rate for name, rate in own.items() if rate is not None},
    )


def show_rates(
    settings: OptimizerSettings,
    model: nn.Module,
    optimizer: OptimizerConfig,
    console: Console,
    *,
    adapted: bool = False,
    pretraining: bool = False,
) -> list[dict[str, Any]]:
    """Print the learning rate of each parameter group, and warn about unusual rates that the settings contain.

    Args:
        settings: Settings of the run.
        model: Model to train.
        optimizer: Learning rates before the schedule.
        console: Console to print to.
        adapted: Whether LoRA adapters are trained instead of all weights.
        pretraining: Whether training starts from random weights.

    Returns:
        The parameter groups as JSON values, for the artifact.
    """
    from groundup.optim import GROUPS, group_rates
    from groundup.train.planner.rates import unusual_rate_warning

    found = group_rates(model, optimizer)
    names = GROUPS | ({"matrix": "LoRA adapters"} if adapted else {})
    spelling = {"muon": "Muon", "adamw": "AdamW"}
    rows = [
        (names[rate.group], f"{rate.parameters:,}", spelling[rate.optimizer], f"{rate.learning_rate:.4g}")
        for rate in found
    ]
    console.table("Learning rates", ["parameters", "number", "optimizer", "learning rate"], rows)
    for rate in found:
        warning = unusual_rate_warning(rate, adapted=adapted, pretraining=pretraining)
        if warning and _is_set(settings, rate):
            console.warn(warning)
    return [asdict(rate) for rate in found]


def _is_set(settings: OptimizerSettings, rate: GroupRate) -> bool:
    if rate.group == "matrix":
        return bool(settings.learning_rate or settings.learning_rate_scale)
    name = {"vector": "norm"}.get(rate.group, rate.group)
    return getattr(settings, f"{name}_learning_rate") is not None
