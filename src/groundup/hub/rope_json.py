"""Rotary positions in `config.json`: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of 5.

The latter nests them by the kind of layer where those differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from groundup.core.errors import FormatError
from groundup.model import ModelConfig
from groundup.model.config import SCALINGS, RopeScaling, ScalingKind
from groundup.model.families.base import FULL, SLIDING

_FIELDS: dict[ScalingKind, tuple[str, ...]] = {  # besides factor and context; named alike on both sides
    "linear": (),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_slow", "beta_fast", "attention_factor", "truncate"),
}


def read_rope(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ModelConfig` that their config says about rotary positions.

    Args:
        config: the shape as far as it is known.
        given: their config, with the defaults of the family filled in.

    Raises:
        FormatError: a scaling that is not known, or values that cannot be.
    """
    if not config.rotary:
        return {}
    names, parameters = config.declared.huggingface, require_mapping(given, "rope_parameters")
    nested = names.rope_by_layer_type or FULL in parameters
    older = require_mapping(given, "rope_scaling")
    if "type" in older:
        older.setdefault("rope_type", older["type"])
    whole = (require_mapping(parameters, FULL) if nested else parameters) | older
    found: dict[str, Any] = {
        "rope_theta": _number(whole, "rope_theta") or given[names.rope_theta],
        "rope_scaling": _scaling(whole, config, given),
    }
    if names.rotary_fraction is not None:
        fraction = _number(whole, "partial_rotary_factor") or _number(given, names.rotary_fraction)
        found["rotary_fraction"] = None if fraction == 1 else fraction
    if not names.rope_by_layer_type:
        return found
    local = require_mapping(parameters, SLIDING)
    theta = _number(local, "rope_theta") or given["rope_local_base_freq"]
    scaling = _scaling(local, config, given)
    if scaling is None:
        return found | {"local_rope_theta": theta}
    if {"rope_theta": theta, "rope_scaling": scaling} != found:
        raise FormatError(
            f"rope_parameters of {SLIDING}: {local!r}"[:200],
            rule="layers that see a window turn as the others do, or by a base of their own without scaling",
            fix="Choose a model without this variant.",
        )
    return found


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """Their keys, for both releases."""
    if not config.rotary:
        return {}
    scaling = config.rope_scaling
    kind: dict[str, Any] = {"rope_type": "default"}
    if scaling is not None:
        kind = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind != "linear":
            kind["original_max_position_embeddings"] = scaling.original_context_length
        usual = RopeScaling(scaling.kind, 1.0, 1)
        kind |= {
            name: getattr(scaling, name)
            for name in _FIELDS[scaling.kind]
            if scaling.kind == "llama3" or getattr(scaling, name) != getattr(usual, name)  # llama3 leaves nothing out
        }
    names = config.declared.huggingface
    theirs = {names.rope_theta: config.rope_theta, "rope_scaling": None if scaling is None else kind}
    whole = kind | {"rope_theta": config.rope_theta}
    if names.rotary_fraction is not None:  # always: some families rotate a part by default
        theirs[names.rotary_fraction] = whole["partial_rotary_factor"] = config.rotary_fraction or 1.0
    if not names.rope_by_layer_type:
        return theirs | {"rope_parameters": whole}
    own = config.local_rope_theta
    local = whole if own is None else {"rope_type": "default", "rope_theta": own}
    return theirs | {"rope_local_base_freq": local["rope_theta"], "rope_parameters": {FULL: whole, SLIDING: local}}


def _scaling(parameters: Mapping[str, Any], config: ModelConfig, given: Mapping[str, Any]) -> RopeScaling | None:
    named = parameters.get("rope_type") or parameters.get("type") or "default"
    partial = None if config.declared.huggingface.rotary_fraction else parameters.get("partial_rotary_factor")
    kind = next((known for known in SCALINGS if known == named), None)
    if (kind is None and named != "default") or partial not in (None, 1):
        raise FormatError(
            f"rope_type = {named!r}, partial_rotary_factor = {partial!r}"[:200],
            rule=f"rotary positions of {config.family} models are read as they are or scaled by {', '.join(SCALINGS)}",
            fix="Choose a model with one of these.",
        )
    if kind is None:
        return None
    if kind == "linear":
        return RopeScaling(kind, _required(parameters, "factor"))
    original = _number(given, "original_max_position_embeddings")
    original = original or _number(parameters, "original_max_position_embeddings") or config.context_length
    fields = {name: parameters[name] for name in _FIELDS[kind] if parameters.get(name) is not None}
    if kind == "llama3":
        return RopeScaling(kind, _required(parameters, "factor"), original, **fields)  # type: ignore[arg-type]
    factor = _number(parameters, "factor") or config.context_length / original
    above, below = _number(parameters, "mscale"), _number(parameters, "mscale_all_dim")
    if above and below and "attention_factor" not in fields:  # DeepSeek's way to say it
        stretch = 0.1 * math.log(max(factor, 1.0))
        fields["attention_factor"] = (above * stretch + 1.0) / (below * stretch + 1.0)
    return RopeScaling(kind, factor, original, **fields)  # type: ignore[arg-type]


def require_mapping(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; empty where there is none."""
    value = given.get(key) or {}
    if not isinstance(value, Mapping):
        raise _not_a(f"{key} = {value!r}", "an object with keys and values")
    return dict(value)


def _number(given: Mapping[str, Any], key: str) -> float | None:
    value = given.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise _not_a(f"{key} = {value!r}", "a positive number")
    return value


def _required(given: Mapping[str, Any], key: str) -> float:
    value = _number(given, key)
    if value is None:
        raise _not_a(f"no {key}", "given with this rope_type")
    return value


def _not_a(value: str, kind: str) -> FormatError:
    return FormatError(value[:200], rule=f"it is {kind}", fix="Correct config.json, or get the model again.")
