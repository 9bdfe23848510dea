"""Optimizer settings and default learning rates of the training commands, and the table of rates for the console."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from groundup.optim import GroupRate, MatrixOptimizer, OptimizerConfig

OptimizerName = Literal["muon", "adamw"]

_HIGH = 0.1  # learning rate at which training with any supported optimizer is unstable
_LARGEST_DEFAULT = 0.02  # largest default learning rate, at learning_rate_scale = 1
_RATES = ("learning_rate", "embedding_learning_rate", "head_learning_rate", "norm_learning_rate")


def _rate(help: str, *, flag: bool = False) -> Any:
    return setting(None, help=help, flag=flag, gt=0, allow_inf_nan=False)


class OptimizerSettings(Config):
    """Settings of the optimizer. Learning rates are absolute values, as in PyTorch, transformers and TRL."""

    optimizer: OptimizerName | None = setting(
        None, help="optimizer of the 2-D weights; default: muon (for LoRA: adamw)", flag=True
    )
    learning_rate: float | None = _rate("peak learning rate; default: depends on the model", flag=True)
    learning_rate_scale: float | None = _rate(
        "factor on the default pretraining rates, instead of learning_rate; default: 0.3 (1 with random weights)"
    )
    embedding_learning_rate: float | None = _rate(
        "AdamW learning rate of the embeddings; default: learning_rate, scaled if the optimizer is muon"
    )
    head_learning_rate: float | None = _rate(
        "AdamW learning rate of the head; default: computed like embedding_learning_rate"
    )
    norm_learning_rate: float | None = _rate(
        "AdamW learning rate of norms and biases; default: computed like embedding_learning_rate"
    )
    allow_high_learning_rate: bool = setting(False, help="allow learning rates of 0.1 or more")
    weight_decay: float | None = setting(
        None,
        help="weight decay of the 2-D weights in the layers, a factor on the learning rate; default: 0, or "
        "0.3 in pretraining from random weights",
        ge=0,
    )
    embedding_weight_decay: float | None = setting(
        None,
        help="decoupled weight decay of embeddings and head, a factor on their learning rates; default: 0, or "
        "weight_decay in pretraining",
        ge=0,
    )
    weight_decay_schedule: Literal["learning_rate", "constant", "linear"] = setting(
        "learning_rate",
        help="factor of the decay: the current learning rate, a constant (the peak rate), or linear (the current rate "
        "times the completed fraction of the run)",
    )
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
    """Return the error for settings that combine Muon with LoRA."""
    return ConfigError(
        f"optimizer = muon with method = {method}",
        rule="Muon updates full weight matrices; LoRA adapters are trained with AdamW",
        fix="Remove optimizer, or train all weights: --method full.",
    )


def language_model_rates(
    settings: OptimizerSettings, dim: int | None = None, *, adapted: bool = False
) -> OptimizerConfig:
    """Return the optimizer config for pretraining or instruction tuning.

    Args:
        settings: Settings of the run.
        dim: Hidden size of the base model, or None if training starts from random weights. Base models with a larger
            hidden size get lower default rates.
        adapted: Whether LoRA adapters are trained instead of all weights.

    Returns:
        The config. Learning rates that are not set have their default values.
    """
    from groundup.optim import MATRIX_LR, OptimizerConfig
    from groundup.train.planner.fine_tuning import DEFAULT_RATE_SCALE, adapter_rates, fine_tuning_rates

    name: MatrixOptimizer = settings.optimizer or "muon"
    usual = OptimizerConfig(MATRIX_LR[name], matrices=name)
    scale = settings.learning_rate_scale
    if dim is None:
        usual = usual.scaled(scale or 1)
    elif adapted:
        usual = adapter_rates(dim, scale or DEFAULT_RATE_SCALE)
    else:
        usual = fine_tuning_rates(dim, scale or DEFAULT_RATE_SCALE, usual)
    return _chosen(settings, usual)


def classifier_rates(settings: OptimizerSettings, *, dim: int, adapted: bool) -> OptimizerConfig:
    """Return the optimizer config for training a classifier.

    Args:
        settings: Settings of the run, in which `learning_rate_scale` is a factor on the default rates of classifiers.
        dim: Hidden size of the base model.
        adapted: Whether LoRA adapters are trained instead of all weights.

    Returns:
        The config. Learning rates that are not set have their default values.
    """
    from groundup.optim import MATRIX_LR
    from groundup.train.planner.fine_tuning import adapter_rates
    from groundup.train.planner.rates import CLASSIFIER

    usual = CLASSIFIER
    if adapted:
        usual = replace(adapter_rates(dim), head_lr=CLASSIFIER.head_lr)
    elif settings.optimizer == "adamw":
        matrix = CLASSIFIER.matrix_lr * MATRIX_LR["adamw"] / MATRIX_LR["muon"]
        usual = replace(usual, matrix_lr=matrix, matrices="adamw")
    return _chosen(settings, usual.scaled(settings.learning_rate_scale or 1))


def _chosen(settings: OptimizerSettings, usual: OptimizerConfig) -> OptimizerConfig:
    """Return the default rates, overridden by the rates that the user has set."""
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
        weight_decay=settings.weight_decay or 0.0,
        embedding_weight_decay=settings.embedding_weight_decay or 0.0,
        weight_decay_schedule=settings.weight_decay_schedule,
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
    """Print the learning rate of each parameter group, and warn if the user has set an unusual rate.

    Args:
        settings: Settings of the run.
        model: Model to train.
        optimizer: Peak learning rates.
        console: Console to print to.
        adapted: Whether LoRA adapters are trained instead of all weights.
        pretraining: Whether training starts from random weights.

    Returns:
        The parameter groups and their learning rates as JSON values, for `artifact.json`.
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
