"""Warn about unusual learning rates."""

from __future__ import annotations

from collections.abc import Mapping

from groundup.optim import GROUPS, GroupRate, OptimizerConfig

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
