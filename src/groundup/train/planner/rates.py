"""Warn about unusual learning rates, and convert the learning rates of old recipes that do not have a version."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundup.optim import GROUPS, MATRIX_LR, GroupRate, MatrixOptimizer, OptimizerConfig
from groundup.train.planner.fine_tuning import DEFAULT_RATE_SCALE, adapter_rates, fine_tuning_rates

Range = tuple[float, float]

# Usual ranges of the learning rate of 2-D weights in the layers. The ranges contain the rates in papers and in other
# training libraries, and the default rates of this library for hidden sizes from 64 to 8,192.
ADAPTERS: Range = (1e-4, 1e-2)
PRETRAINING: Mapping[str, Range] = {"muon": (1e-3, 0.05), "adamw": (3e-5, 1e-2)}
FINE_TUNING: Mapping[str, Range] = {"muon": (1e-4, 0.02), "adamw": (1e-6, 1e-3)}
OTHER_GROUPS: Range = (1e-6, 0.05)  # usual range for embeddings, head, norms and biases with AdamW
CLASSIFIER = OptimizerConfig(0.01, 0.005, 0.003, 0.002)
NAMES = {group: "learning_rate" if group == "matrix" else f"{group}_learning_rate" for group in GROUPS} | {
    "vector": "norm_learning_rate"
}


def unusual_rate_warning(rate: GroupRate, *, adapted: bool, pretraining: bool) -> str | None:
    """Return a warning if a learning rate is outside of its usual range; otherwise return None.

    Args:
        rate: Parameter group and its learning rate.
        adapted: Whether LoRA adapters are trained instead of all weights.
        pretraining: Whether training starts from random weights.
    """
    if rate.group != "matrix":
        usual, method = OTHER_GROUPS, f"AdamW, {GROUPS[rate.group]}"
    elif adapted:
        usual, method = ADAPTERS, "LoRA with AdamW"
    else:
        usual = (PRETRAINING if pretraining else FINE_TUNING)[rate.optimizer]
        name = "Muon" if rate.optimizer == "muon" else "AdamW"
        method = f"pretraining with {name}" if pretraining else f"full fine-tuning with {name}"
    low, high = usual
    if low <= rate.learning_rate <= high:
        return None
    too_high = rate.learning_rate > high
    value = f"{NAMES[rate.group]} = {rate.learning_rate:g}"
    effect = "Training may diverge." if too_high else "The loss may hardly fall."
    return f"{value} is {'above' if too_high else 'below'} the usual range, {low:g} to {high:g} for {method}. {effect}"


def convert_rates(stage: str, table: Mapping[str, Any], dim: int | None) -> dict[str, Any]:
    """Convert the learning rates in a table of a recipe without a version to equivalent settings.

    Args:
        stage: Stage of the table: "pretrain", "finetune.instruct" or "finetune.classify".
        table: All settings in the table of the stage.
        dim: Hidden size of the model, or None to assume a hidden size of at most 256.

    Returns:
        Maps the name of each setting to its value.
    """
    asked, classify = table.get("method"), stage == "finetune.classify"
    lora = table.get("lora", {}).get("learning_rate")
    rate_of_all = table.get("matrix_lr" if classify else "learning_rate")
    if asked in ("lora", "merged") or (lora is not None and rate_of_all is None and asked is None):
        head = {"head": table.get("head_lr", CLASSIFIER.head_lr)} if classify else {}
        if lora is None:
            return _explicit_rates(head, {"head": CLASSIFIER.head_lr})
        # Since version 2 of recipes, `learning_rate` applies to all trained parameters. In recipes without a version,
        # the embeddings of new tokens and the head of a classifier had separate rates.
        own = head or ({"embedding": adapter_rates(dim).embedding_lr} if dim else {})
        return _explicit_rates({"matrix": lora, **own}, dict.fromkeys(own, lora))
    old, usual = _full_rates(stage, table, dim or 1)
    rates = {group: old.rate_of(group) for group in GROUPS}
    if math.isclose(old.matrix_lr, usual.matrix_lr):
        return _explicit_rates(rates, {group: usual.rate_of(group) for group in GROUPS})
    kept = usual.with_learning_rate(old.matrix_lr)
    now = _explicit_rates(rates, {group: kept.rate_of(group) for group in GROUPS if group != "matrix"})
    # In recipes without a version, a learning rate for all weights also selected full fine-tuning.
    return now | ({} if stage == "pretrain" else {"method": "full"})


def absolute_rate(stage: str, table: Mapping[str, Any], dim: int | None) -> float:
    """Return the absolute learning rate of 2-D weights in the layers for a table of a recipe without a version.

    The arguments are described in `convert_rates`.
    """
    return _full_rates(stage, table, dim or 1)[0].matrix_lr


def _full_rates(stage: str, table: Mapping[str, Any], dim: int) -> tuple[OptimizerConfig, OptimizerConfig]:
    """Return the learning rates for all weights in a table without a version, and the default rates of the stage."""
    matrices: MatrixOptimizer = table.get("optimizer", "muon") if stage == "pretrain" else "muon"
    usual = CLASSIFIER if stage == "finetune.classify" else OptimizerConfig(MATRIX_LR[matrices], matrices=matrices)
    given = {f"{group}_lr": table.get(f"{group}_lr", usual.rate_of(group)) for group in GROUPS}
    old = OptimizerConfig(**given, matrices=matrices)
    if stage == "finetune.instruct" or (stage == "pretrain" and table.get("model")):
        old = fine_tuning_rates(dim, table.get("learning_rate", DEFAULT_RATE_SCALE), old)
        usual = fine_tuning_rates(dim, DEFAULT_RATE_SCALE, usual)
    return old, usual


def _explicit_rates(rates: Mapping[str, float], implied: Mapping[str, float]) -> dict[str, Any]:
    """Return the settings for those learning rates that differ from the rates that other settings imply."""
    return {
        NAMES[group]: float(f"{rate:.6g}")
        for group, rate in rates.items()
        if group not in implied or not math.isclose(rate, implied[group], rel_tol=1e-6)
    }
