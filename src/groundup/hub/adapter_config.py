"""Reading and writing of PEFT's `adapter_config.json`: adapted layers, LoRA ranks and scales.

Unsupported variants of LoRA are rejected.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from groundup.core.errors import FormatError

# Any value of these keys is accepted: they do not change the output of a trained adapter, or this module reads them.
_IGNORED_KEYS = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
}
CLASSIFIER = "SEQ_CLS"  # Value of `task_type` for sequence classification.
_HEADS = {"score", "classifier"}  # Names of classification heads that PEFT trains in full, without LoRA.
# Supported values of keys. With other values, the adapter computes something else or requires a modified base model.
_SUPPORTED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", None),
}


@dataclass(frozen=True, slots=True)
class AdaptedLayer:
    """LoRA rank and scale of one adapted layer."""

    rank: int
    scale: float


def write_adapter_config(
    adapted: Mapping[str, AdaptedLayer],
    layers: Iterable[str],
    *,
    base: str | None,
    fan_in_fan_out: bool,
    dropout: float,
    classifies: bool,
) -> dict[str, Any]:
    """Return the content of an adapter's config.

    Args:
        adapted: Hugging Face name of each adapted layer -> its rank and scale.
        layers: Hugging Face names of all layers that can be adapted.
        base: path or name of the base model.
        fan_in_fan_out: whether the base model stores its weights with shape (inputs, outputs).
        dropout: dropout probability of LoRA.
        classifies: whether the adapter includes a fully trained classification head.

    Returns:
        The content of `adapter_config.json`.
    """
    usual = Counter(adapted.values()).most_common(1)[0][0]
    others = {name: layer for name, layer in adapted.items() if layer != usual}
    return {
        "peft_type": "LORA",
        "task_type": CLASSIFIER if classifies else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": True,
        "r": usual.rank,
        "lora_alpha": _as_number(usual.scale * usual.rank),
        "lora_dropout": dropout,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": fan_in_fan_out,
        "init_lora_weights": True,
        "modules_to_save": ["score"] if classifies else None,
        "target_modules": _short_names(adapted, layers),
        "rank_pattern": {name: layer.rank for name, layer in others.items()},
        "alpha_pattern": {name: _as_number(layer.scale * layer.rank) for name, layer in others.items()},
    }


def read_adapter_config(record: Mapping[str, Any], layer: str) -> AdaptedLayer:
    """Return the rank and the scale of one layer.

    `record` must be the result of `require_supported_lora`, and `layer` the Hugging Face name of a layer.

    Raises:
        FormatError: the rank or alpha is invalid, or `rank_pattern` or `alpha_pattern` contains a regular expression.
    """
    rank = _of_layer(record, "rank_pattern", layer, record.get("r"))
    alpha = _of_layer(record, "alpha_pattern", layer, record.get("lora_alpha"))
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise FormatError(
            f"r = {rank!r}, lora_alpha = {alpha!r}"[:200],
            rule="the rank must be positive, and alpha must be finite",
            fix="The config is damaged: download the adapter again.",
        )
    return AdaptedLayer(rank, alpha / (math.sqrt(rank) if record.get("use_rslora") else rank))


def require_supported_lora(record: Any) -> dict[str, Any]:
    """Return the config if it describes standard LoRA.

    Raises:
        FormatError: the config describes another method than LoRA, or an unsupported variant of LoRA.
    """
    if not isinstance(record, dict):
        raise FormatError("adapter_config.json: not a JSON object", fix="Download the adapter again.")
    for key, value in record.items():
        allowed = (
            value in _SUPPORTED_VALUES[key]
            if key in _SUPPORTED_VALUES and _is_plain(value)
            else key in _IGNORED_KEYS or not value
        )
        if key == "modules_to_save" and record.get("task_type") == CLASSIFIER and isinstance(value, list):
            allowed = all(isinstance(name, str) and name in _HEADS for name in value)
        if not allowed:
            raise FormatError(
                f"{key} = {value!r}"[:200],
                rule="groundup supports only standard LoRA on an unchanged base model",
                fix="Merge the adapter into its base model with the tool that wrote it, and import the result.",
            )
    return record


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool)


def _of_layer(record: Mapping[str, Any], key: str, layer: str, otherwise: Any) -> Any:
    patterns = record.get(key) or {}
    if not isinstance(patterns, dict):
        patterns = {str(patterns): None}
    for name, value in patterns.items():
        # PEFT interprets names as regular expressions. Untrusted regular expressions can take exponential time.
        if not re.fullmatch(r"[\w.]+", name):
            raise FormatError(
                f"{key} with {name!r}"[:200],
                rule="a pattern must be the name of a layer or a suffix of the name",
                fix="Replace the pattern with the names of the layers.",
            )
        if f".{layer}".endswith(f".{name}"):
            return value
    return otherwise


def _short_names(adapted: Mapping[str, AdaptedLayer], layers: Iterable[str]) -> list[str]:
    """Return the last component of each name if only adapted layers have it, otherwise the full name."""
    left = {name.rpartition(".")[2] for name in layers if name not in adapted}
    return sorted({name if (last := name.rpartition(".")[2]) in left else last for name in adapted})


def _as_number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
