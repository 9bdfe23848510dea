"""Hugging Face's `config.json`, in the spellings of transformers 4 and 5, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from groundup.core.errors import ConfigError, FormatError
from groundup.hub.rope_json import read_rope, require_mapping, write_rope
from groundup.model import ModelConfig
from groundup.model.families import FAMILIES, GUIDE
from groundup.model.families.base import Family, Head, HuggingFace

# Keys of other architectures, which a copied or edited config may carry: the weights would mean something else.
_OTHER_ARCHITECTURES = (
    "quantization_config", "num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok",
    "moe_intermediate_size", "partial_rotary_factor", "rotary_pct", "rope_interleaved", "no_rope_layers",
    "attention_multiplier", "residual_multiplier", "embedding_multiplier", "logits_scaling", "scale_emb",
    "scale_depth", "clip_qkv", "kv_lora_rank", "q_lora_rank", "cross_attention_layers", "attention_chunk_size",
    "vision_config", "audio_config", "is_encoder_decoder", "is_cross_attention",
)  # fmt: skip
# What says nothing of the architecture, where an unknown one is told apart by its keys.
_NO_DIFFERENCE = (
    "model_type", "architectures", "torch_dtype", "dtype", "transformers_version", "use_cache", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "auto_map", "rope_theta", "rope_scaling",
    "rope_parameters", "hidden_act", "layer_types", "output_attentions", "output_hidden_states", "return_dict",
    "is_encoder_decoder", "chunk_size_feed_forward", "problem_type", "pretraining_tp",
)  # fmt: skip


def read_config_json(theirs: Mapping[str, Any]) -> ModelConfig:
    """The shape that a `config.json` describes.

    Raises:
        FormatError: an architecture that is not known, a variant whose weights would mean something else, or sizes
            that cannot be.
    """
    family = _family(theirs)
    names = family.huggingface
    if theirs["model_type"] != names.model_type:  # a multimodal model: only its text model is read
        theirs = require_mapping(theirs, "text_config")
    _refuse_variants(names, theirs)
    given = {**names.defaults, **theirs}
    missing = [key for key in names.keys.values() if key not in given]
    if missing:
        raise FormatError(
            f"config.json without {', '.join(missing)}",
            rule=f"a {names.model_type} model has them",
            fix="The file is incomplete; get the model again.",
        )
    values = {our: given[their] for our, their in names.keys.items()}
    try:
        _derive(names, values, given)
        config = ModelConfig(family=family.name, **values)
        windows = {} if names.windows is None else names.windows.read(config, given)
        return replace(config, **read_rope(config, given), **windows)
    except ConfigError as error:
        raise FormatError(f"config.json: {error.value}", rule=error.rule, fix=error.fix) from error


def to_config_json(config: ModelConfig, head: Head = "language", dtype: str = "float32") -> dict[str, Any]:
    """`config.json` for transformers 4 and 5 (which moved rope_theta into rope_parameters).

    Args:
        dtype: of the weights, e.g. "bfloat16".
    """
    names = config.declared.huggingface
    return {
        "architectures": [names.architectures[head]],
        "model_type": names.model_type,
        **{their: getattr(config, our) for our, their in names.keys.items()},
        **({} if names.write is None else names.write(config)),
        **write_rope(config),
        **({} if names.windows is None else names.windows.write(config)),
        **{key: values[0] for key, values in names.fixed.items()},
        **dict.fromkeys(names.dropouts, 0.0),
        "torch_dtype": dtype,
    }


def _family(theirs: Mapping[str, Any]) -> Family:
    named = theirs.get("model_type")
    declared = [family.huggingface for family in FAMILIES.values()]
    for family in FAMILIES.values():
        names = family.huggingface
        if named == names.model_type or (names.within is not None and named == names.within.model_type):
            return family
    known = set().union(*(names.known_keys for names in declared))
    other = [key for key in theirs if key not in known and key not in _NO_DIFFERENCE and theirs[key] is not None]
    other.sort(key=lambda key: key not in _OTHER_ARCHITECTURES)  # the telling ones first
    differs = f"; its config differs from theirs in {', '.join(map(str, other[:6]))}" if other else ""
    raise FormatError(
        f"model_type = {named!r}"[:200],
        rule=f"the known architectures are {', '.join(names.model_type for names in declared)}{differs}",
        fix=f"Choose a model of one of these families, or add the family: {GUIDE} shows how.",
    )


def _refuse_variants(names: HuggingFace, theirs: Mapping[str, Any]) -> None:
    for key, same in names.fixed.items():
        found = theirs.get(key)
        if found is not None and found not in same:
            raise FormatError(
                f"{key} = {found!r}"[:200],
                rule=f"groundup reads {names.model_type} models with {key} = {' or '.join(map(repr, same))}",
                fix="Choose a model without this variant.",
            )
    for key in _OTHER_ARCHITECTURES:
        found = theirs.get(key)
        # transformers 4.57 writes GPT-NeoX's rotary_pct a second time, under this name.
        if key == "partial_rotary_factor" and found == theirs.get(names.rotary_fraction or ""):
            continue
        # Zero, one (of a factor) and what is empty are no variant.
        if key not in names.known_keys and (found is True or (found and found != 1)):
            raise FormatError(
                f"{key} = {found!r}"[:200],
                rule=f"{names.model_type} has no such thing in transformers, so the weights would mean something else",
                fix="Dequantize the model first." if key == "quantization_config" else "Choose a model without it.",
            )


def _derive(names: HuggingFace, values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """What a config may leave to other values."""
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
