"""`adapter_config.json` of PEFT: which layers are adapted, at which ranks and scales. What it would compute otherwise
than we do is refused."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from groundup.core.errors import FormatError

# Keys that change nothing in what an adapter computes once it is trained, whatever they say.
_HARMLESS = {
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
CLASSIFIER = "SEQ_CLS"  # as task_type: a head of its own, which PEFT trains whole under one of these names
_HEADS = {"score", "classifier"}
# Keys of which these values are known; others stand for another computation, or for a base that was changed first.
_KNOWN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal", None),
}


@dataclass(frozen=True, slots=True)
class AdaptedLayer:
    """Rank and scale of one layer."""

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
    """The config of an adapter.

    Args:
        adapted: by their name of the layer.
        layers: every layer of the model, by their names, that could have been adapted.
        base: the model that it belongs to, as a path or a name.
        fan_in_fan_out: the base keeps its matrices with inputs as rows.
        classifies: a head for labels, trained whole, lies beside the adapters.
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
        "lora_alpha": _plain(usual.scale * usual.rank),
        "lora_dropout": dropout,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": fan_in_fan_out,
        "init_lora_weights": True,
        "modules_to_save": ["score"] if classifies else None,
        "target_modules": _shortened(adapted, layers),
        "rank_pattern": {name: layer.rank for name, layer in others.items()},
        "alpha_pattern": {name: _plain(layer.scale * layer.rank) for name, layer in others.items()},
    }


def read_adapter_config(record: Mapping[str, Any], layer: str) -> AdaptedLayer:
    """Rank and scale of a layer, by their name of it, in a config that `require_plain_lora` let pass.

    Raises:
        FormatError: they are no numbers, or given by a pattern that is more than a name.
    """
    rank = _of_layer(record, "rank_pattern", layer, record.get("r"))
    alpha = _of_layer(record, "alpha_pattern", layer, record.get("lora_alpha"))
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise FormatError(
            f"r = {rank!r}, lora_alpha = {alpha!r}"[:200],
            rule="an adapter has a positive rank and a finite alpha",
            fix="Get the adapter again: its config is damaged.",
        )
    return AdaptedLayer(rank, alpha / (math.sqrt(rank) if record.get("use_rslora") else rank))


def require_plain_lora(record: Any) -> dict[str, Any]:
    """The config, if all that it says is plain LoRA.

    Raises:
        FormatError: another method, or a variant that computes something else.
    """
    if not isinstance(record, dict):
        raise FormatError("adapter_config.json: no table", rule="it is a JSON object", fix="Get the adapter again.")
    for key, value in record.items():
        allowed = value in _KNOWN[key] if key in _KNOWN and _is_plain(value) else key in _HARMLESS or not value
        if key == "modules_to_save" and record.get("task_type") == CLASSIFIER and isinstance(value, list):
            allowed = all(isinstance(name, str) and name in _HEADS for name in value)
        if not allowed:
            raise FormatError(
                f"{key} = {value!r}"[:200],
                rule="groundup reads plain LoRA: two factors for a linear layer, beside a base that is not changed",
                fix="Merge the adapter into its base with the tool that made it, and import the result.",
            )
    return record


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool)


def _of_layer(record: Mapping[str, Any], key: str, layer: str, otherwise: Any) -> Any:
    patterns = record.get(key) or {}
    if not isinstance(patterns, dict):
        patterns = {str(patterns): None}
    for name, value in patterns.items():
        # PEFT takes them for regular expressions; those from strangers can take for ever.
        if not re.fullmatch(r"[\w.]+", name):
            raise FormatError(
                f"{key} with {name!r}"[:200],
                rule="a pattern here is the name of a layer, or the end of one",
                fix="Write the names of the layers in its place.",
            )
        if f".{layer}".endswith(f".{name}"):
            return value
    return otherwise


def _shortened(adapted: Mapping[str, AdaptedLayer], layers: Iterable[str]) -> list[str]:
    """Last words of names where they stand for adapted layers alone, as people write them; else whole names."""
    left = {name.rpartition(".")[2] for name in layers if name not in adapted}
    return sorted({name if (last := name.rpartition(".")[2]) in left else last for name in adapted})


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
