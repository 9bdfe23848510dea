"""Reading and writing of Hugging Face's `config.json`, in the formats of transformers 4 and 5."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from groundup.core.errors import ConfigError, FormatError
from groundup.hub.compressed_tensors import KEY, read_scheme
from groundup.model import ModelConfig
from groundup.model.config import SCALINGS, RopeScaling, ScalingKind
from groundup.model.families import FAMILIES, GUIDE
from groundup.model.families.base import FULL, SLIDING, Family, Head, HuggingFace

# Keys of each RoPE scaling in addition to its factor and original context length. The fields of `RopeScaling` have the
# same names.
_FIELDS: dict[ScalingKind, tuple[str, ...]] = {
    "linear": (),
    "llama3": ("low_freq_factor", "high_freq_factor"),
    "yarn": ("beta_slow", "beta_fast", "attention_factor", "truncate"),
}


def read_rope(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that describe rotary embeddings (RoPE).

    Args:
        config: model config in which the fields for RoPE are not set.
        given: Hugging Face config, completed with the default values of the family.

    Returns:
        Field name -> value.

    Raises:
        FormatError: the type of RoPE scaling is unknown, or a value is invalid.
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
            rule="sliding-window layers may have a different rope_theta, but not a different RoPE scaling",
            fix="Choose a model without this variant.",
        )
    return found


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """Return the keys of `config.json` that describe rotary embeddings, for transformers 4 and 5."""
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
            if scaling.kind == "llama3"  # transformers requires all keys of llama3.
            or getattr(scaling, name) != getattr(usual, name)
        }
    names = config.declared.huggingface
    raw = {names.rope_theta: config.rope_theta, "rope_scaling": None if scaling is None else kind}
    whole = kind | {"rope_theta": config.rope_theta}
    if names.rotary_fraction is not None:  # Write 1 too, because some families have another default.
        raw[names.rotary_fraction] = whole["partial_rotary_factor"] = config.rotary_fraction or 1.0
    if not names.rope_by_layer_type:
        return raw | {"rope_parameters": whole}
    own = config.local_rope_theta
    local = whole if own is None else {"rope_type": "default", "rope_theta": own}
    return raw | {"rope_local_base_freq": local["rope_theta"], "rope_parameters": {FULL: whole, SLIDING: local}}


def _scaling(parameters: Mapping[str, Any], config: ModelConfig, given: Mapping[str, Any]) -> RopeScaling | None:
    named = parameters.get("rope_type") or parameters.get("type") or "default"
    partial = None if config.declared.huggingface.rotary_fraction else parameters.get("partial_rotary_factor")
    kind = next((known for known in SCALINGS if known == named), None)
    if (kind is None and named != "default") or partial not in (None, 1):
        raise FormatError(
            f"rope_type = {named!r}, partial_rotary_factor = {partial!r}"[:200],
            rule=f"supported scalings of {config.family} models are {', '.join(SCALINGS)}",
            fix="Choose a model with one of these scalings, or a model without RoPE scaling.",
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
    if above and below and "attention_factor" not in fields:  # DeepSeek's keys for the attention factor.
        stretch = 0.1 * math.log(max(factor, 1.0))
        fields["attention_factor"] = (above * stretch + 1.0) / (below * stretch + 1.0)
    return RopeScaling(kind, factor, original, **fields)  # type: ignore[arg-type]


def require_mapping(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the JSON object that is the value of a key; an empty dict if the key is missing.

    Raises:
        FormatError: the value is not a JSON object.
    """
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
        raise _not_a(f"{key} is missing", "set, because this rope_type requires it")
    return value


def _not_a(value: str, kind: str) -> FormatError:
    return FormatError(value[:200], rule=f"must be {kind}", fix="Correct config.json, or download the model again.")


# Keys that change the computation of other architectures. A model with one of these keys is rejected, unless its family
# supports the key.
_OTHER_ARCHITECTURES = (
    "quantization_config", "num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok",
    "moe_intermediate_size", "partial_rotary_factor", "rotary_pct", "rope_interleaved", "no_rope_layers",
    "attention_multiplier", "residual_multiplier", "embedding_multiplier", "logits_scaling", "scale_emb",
    "scale_depth", "clip_qkv", "kv_lora_rank", "q_lora_rank", "cross_attention_layers", "attention_chunk_size",
    "vision_config", "audio_config", "is_encoder_decoder", "is_cross_attention",
)  # fmt: skip
# Keys that the error message for an unknown architecture does not list.
_IGNORED_KEYS = (
    "model_type", "architectures", "torch_dtype", "dtype", "transformers_version", "use_cache", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "auto_map", "rope_theta", "rope_scaling",
    "rope_parameters", "hidden_act", "layer_types", "output_attentions", "output_hidden_states", "return_dict",
    "is_encoder_decoder", "chunk_size_feed_forward", "problem_type", "pretraining_tp",
)  # fmt: skip


def read_config_json(raw: Mapping[str, Any]) -> ModelConfig:
    """Convert the content of a `config.json` to a `ModelConfig`.

    Raises:
        FormatError: the architecture is unknown, its variant is unsupported, or sizes are invalid.
    """
    family = _family(raw)
    names = family.huggingface
    if raw["model_type"] != names.model_type:  # Only the language model of a multimodal model is read.
        raw = require_mapping(raw, "text_config")
    _reject_variants(names, raw)
    given = {**names.defaults, **raw}
    missing = [key for key in names.keys.values() if key not in given]
    if missing:
        raise FormatError(
            f"config.json: missing {', '.join(missing)}",
            rule=f"required for {names.model_type} models",
            fix="The file is incomplete: download the model again.",
        )
    values = {field: given[key] for field, key in names.keys.items()}
    try:
        _derive(names, values, given)
        config = ModelConfig(family=family.name, **values)
        windows = {} if names.windows is None else names.windows.read(config, given)
        return replace(config, **read_rope(config, given), **windows)
    except ConfigError as error:
        raise FormatError(f"config.json: {error.value}", rule=error.rule, fix=error.fix) from error


def to_config_json(config: ModelConfig, head: Head = "language", dtype: str = "float32") -> dict[str, Any]:
    """Convert a model config to the content of `config.json`.

    The content contains the keys of transformers 4 and 5, because version 5 moved rope_theta into rope_parameters.

    Args:
        config: model config.
        head: type of the output head.
        dtype: data type of the weights, such as "bfloat16".

    Returns:
        The content as JSON values.
    """
    names = config.declared.huggingface
    return {
        "architectures": [names.architectures[head]],
        "model_type": names.model_type,
        **{key: getattr(config, field) for field, key in names.keys.items()},
        **({} if names.write is None else names.write(config)),
        **write_rope(config),
        **({} if names.windows is None else names.windows.write(config)),
        **{key: values[0] for key, values in names.fixed.items()},
        **dict.fromkeys(names.dropouts, 0.0),
        "torch_dtype": dtype,
    }


def _family(raw: Mapping[str, Any]) -> Family:
    named = raw.get("model_type")
    declared = [family.huggingface for family in FAMILIES.values()]
    for family in FAMILIES.values():
        names = family.huggingface
        if named == names.model_type or (names.within is not None and named == names.within.model_type):
            return family
    known = set().union(*(names.known_keys for names in declared))
    other = [key for key in raw if key not in known and key not in _IGNORED_KEYS and raw[key] is not None]
    other.sort(key=lambda key: key not in _OTHER_ARCHITECTURES)  # Keys that identify an architecture come first.
    differs = f"; this config has the unknown keys {', '.join(map(str, other[:6]))}" if other else ""
    raise FormatError(
        f"model_type = {named!r}"[:200],
        rule=f"the known architectures are {', '.join(names.model_type for names in declared)}{differs}",
        fix=f"Choose a model of one of these families, or add the family; see {GUIDE}.",
    )


def _reject_variants(names: HuggingFace, raw: Mapping[str, Any]) -> None:
    for key, same in names.fixed.items():
        found = raw.get(key)
        if found is not None and found not in same:
            raise FormatError(
                f"{key} = {found!r}"[:200],
                rule=f"supported for {names.model_type}: {' or '.join(map(repr, same))}",
                fix="Choose a model without this variant.",
            )
    for key in _OTHER_ARCHITECTURES:
        found = raw.get(key)
        if key == KEY:
            read_scheme(raw)
            continue
        # transformers 4.57 also writes the value of GPT-NeoX's rotary_pct to partial_rotary_factor.
        if key == "partial_rotary_factor" and found == raw.get(names.rotary_fraction or ""):
            continue
        # With the value 0 or 1, or an empty value, these keys have no effect.
        if key not in names.known_keys and (found is True or (found and found != 1)):
            raise FormatError(
                f"{key} = {found!r}"[:200],
                rule=f"{names.model_type} models do not have this key in transformers",
                fix="Choose a model without it.",
            )


def _derive(names: HuggingFace, values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Set the values that a `config.json` may omit, in place."""
    if names.read is not None:
        names.read(values, given)
    if values["n_kv_heads"] is None:
        values["n_kv_heads"] = values["n_heads"]
    if values["head_dim"] is None:
        sizes = values["dim"], values["n_heads"]
        whole = all(type(size) is int and size > 0 for size in sizes)
        values["head_dim"] = sizes[0] // sizes[1] if whole else 0
    if values.get("query_scalar") == values["head_dim"]:
        values["query_scalar"] = None
