"""Hugging Face's `config.json`, in the spellings of transformers 4 and 5, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from groundup.checkpoint.families import LAYOUTS, Head
from groundup.checkpoint.rope_json import FULL, SLIDING, read_rope, require_mapping, write_rope
from groundup.errors import ConfigError, FormatError
from groundup.model import Family, ModelConfig


@dataclass(frozen=True, slots=True)
class Spelling:
    """A family's keys.

    Attributes:
        keys: our config field -> their key.
        defaults: what it means that a key is left out: transformers' defaults.
        fixed: keys that the weights leave no choice for, with the values that mean what we compute; the first is
            written. Dropout is among them, written as 0, and whatever it was in training is read.
    """

    keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, tuple[Any, ...]]
    dropouts: Sequence[str] = field(default=("attention_dropout",))


_KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn_dim": "intermediate_size",
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
_DEFAULTS: dict[str, Any] = {
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "head_dim": None,
    "num_key_value_heads": None,
    "rope_theta": 10_000.0,
}
_SILU = {"hidden_act": ("silu", "swish")}
_QWEN_DEFAULTS = _DEFAULTS | {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}

SPELLINGS: dict[Family, Spelling] = {
    "llama": Spelling(
        _KEYS | {"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
        _DEFAULTS | {"max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False},
        _SILU,
    ),
    "mistral": Spelling(_KEYS, _DEFAULTS | {"num_key_value_heads": 8, "sliding_window": 4096}, _SILU),
    "qwen2": Spelling(_KEYS, _QWEN_DEFAULTS, _SILU),
    "qwen3": Spelling(
        _KEYS | {"attention_bias": "attention_bias"}, _QWEN_DEFAULTS | {"head_dim": 128, "attention_bias": False}, _SILU
    ),
    "gemma3": Spelling(
        _KEYS
        | {
            "attention_bias": "attention_bias",
            "query_scalar": "query_pre_attn_scalar",
            "logit_softcap": "final_logit_softcapping",
        },
        {
            "vocab_size": 262_208,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "query_pre_attn_scalar": 256,
            "final_logit_softcapping": None,
            "sliding_window": 4096,
            "sliding_window_pattern": 6,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
        },
        # attn_logit_softcapping is no variant: transformers keeps the key for Gemma 2's sake, and applies it nowhere.
        {"hidden_activation": ("gelu_pytorch_tanh", "gelu_new"), "use_bidirectional_attention": (False,)},
    ),
    "gpt2": Spelling(
        {
            "dim": "n_embd",
            "n_layers": "n_layer",
            "n_heads": "n_head",
            "ffn_dim": "n_inner",
            "vocab_size": "vocab_size",
            "context_length": "n_positions",
            "norm_eps": "layer_norm_epsilon",
            "tie_embeddings": "tie_word_embeddings",
        },
        {
            "n_inner": None,
            "n_positions": 1024,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
            "scale_attn_weights": True,
        },
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
        ("attn_pdrop", "embd_pdrop", "resid_pdrop"),
    ),
}

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
    spelling = SPELLINGS[family]
    if theirs["model_type"] != LAYOUTS[family].model_type:  # it sees, too: what it reads and writes is a part of it
        theirs = require_mapping(theirs, "text_config")
    _refuse_variants(LAYOUTS[family].model_type, spelling, theirs)
    given = {**spelling.defaults, **theirs}
    missing = [key for key in spelling.keys.values() if key not in given]
    if missing:
        raise FormatError(
            f"config.json without {', '.join(missing)}",
            rule=f"a {LAYOUTS[family].model_type} model has them",
            fix="The file is incomplete; get the model again.",
        )
    values = {our: given[their] for our, their in spelling.keys.items()}
    try:
        _derive(family, values, given)
        config = ModelConfig(family=family, **values)
        return replace(config, **read_rope(config, given), **_windows(config, given))
    except ConfigError as error:
        raise FormatError(f"config.json: {error.value}", rule=error.rule, fix=error.fix) from error


def to_config_json(config: ModelConfig, head: Head = "language", dtype: str = "float32") -> dict[str, Any]:
    """`config.json` for transformers 4 and 5 (which moved rope_theta into rope_parameters).

    Args:
        dtype: of the weights, e.g. "bfloat16".
    """
    layout, spelling = LAYOUTS[config.family], SPELLINGS[config.family]
    theirs = {their: getattr(config, our) for our, their in spelling.keys.items()}
    if config.family == "gemma3":
        scalar = config.query_scalar or config.head_dim
        theirs["query_pre_attn_scalar"] = int(scalar) if scalar == int(scalar) else scalar
    if config.family == "gpt2":
        theirs["scale_attn_weights"] = config.query_scalar is None
    return {
        "architectures": [layout.architectures[head]],
        "model_type": layout.model_type,
        **theirs,
        **write_rope(config),
        **_their_windows(config),
        **{key: values[0] for key, values in spelling.fixed.items()},
        **dict.fromkeys(spelling.dropouts, 0.0),
        "torch_dtype": dtype,
    }


def _family(theirs: Mapping[str, Any]) -> Family:
    named = theirs.get("model_type")
    for family, layout in LAYOUTS.items():
        if named == layout.model_type or (layout.within is not None and named == layout.within.model_type):
            return family
    known = {key for spelling in SPELLINGS.values() for key in (*spelling.keys.values(), *spelling.defaults)}
    known |= {key for spelling in SPELLINGS.values() for key in (*spelling.fixed, *spelling.dropouts)}
    other = [key for key in theirs if key not in known and key not in _NO_DIFFERENCE and theirs[key] is not None]
    other.sort(key=lambda key: key not in _OTHER_ARCHITECTURES)  # the telling ones first
    differs = f"; its config differs from theirs in {', '.join(map(str, other[:6]))}" if other else ""
    raise FormatError(
        f"model_type = {named!r}"[:200],
        rule=f"the known architectures are {', '.join(layout.model_type for layout in LAYOUTS.values())}{differs}",
        fix="Choose a model of one of these families.",
    )


def _refuse_variants(model_type: str, spelling: Spelling, theirs: Mapping[str, Any]) -> None:
    for key, same in spelling.fixed.items():
        found = theirs.get(key)
        if found is not None and found not in same:
            raise FormatError(
                f"{key} = {found!r}"[:200],
                rule=f"groundup reads {model_type} models with {key} = {' or '.join(map(repr, same))}",
                fix="Choose a model without this variant.",
            )
    for key in _OTHER_ARCHITECTURES:
        found = theirs.get(key)
        # Zero, one (of a factor) and what is empty are no variant.
        if found is True or (found and found != 1):
            raise FormatError(
                f"{key} = {found!r}"[:200],
                rule=f"{model_type} has no such thing in transformers, so the weights would mean something else",
                fix="Dequantize the model first." if key == "quantization_config" else "Choose a model without it.",
            )


def _derive(family: Family, values: dict[str, Any], given: Mapping[str, Any]) -> None:
    """What a config may leave to other values."""
    if family == "gpt2":
        values["n_kv_heads"], values["head_dim"] = values["n_heads"], None
        values["ffn_dim"] = values["ffn_dim"] or 4 * values["dim"]
        if not given["scale_attn_weights"]:
            values["query_scalar"] = 1.0
    if values["n_kv_heads"] is None:
        values["n_kv_heads"] = values["n_heads"]
    if values["head_dim"] is None:
        sizes = values["dim"], values["n_heads"]
        whole = all(type(size) is int and size > 0 for size in sizes)
        values["head_dim"] = sizes[0] // sizes[1] if whole else 0
    if values.get("query_scalar") == values["head_dim"]:
        values["query_scalar"] = None


def _windows(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Which layers see a window only, and how wide it is."""
    if "sliding_window" not in SPELLINGS[config.family].defaults:
        return {}
    window = given["sliding_window"]
    if window is None or not given.get("use_sliding_window", True):
        return {}
    if config.family == "mistral":
        return {"sliding_window": window}
    kinds = given.get("layer_types")
    if kinds is None and config.family == "gemma3":
        pattern = given["sliding_window_pattern"]
        slides = [
            type(pattern) is int and pattern > 0 and (layer + 1) % pattern > 0 for layer in range(config.n_layers)
        ]
    elif kinds is None:
        full = given["max_window_layers"]
        slides = [type(full) is int and layer >= full for layer in range(config.n_layers)]
    elif not isinstance(kinds, list) or len(kinds) != config.n_layers or not {*kinds} <= {FULL, SLIDING}:
        raise FormatError(
            f"layer_types = {kinds!r}"[:200],
            rule=f"it says of each of the {config.n_layers} layers whether it is {FULL} or {SLIDING}",
            fix="Choose a model without other kinds of layers.",
        )
    else:
        slides = [kind == SLIDING for kind in kinds]
    if not any(slides):
        return {}
    return {"sliding_window": window, "sliding_layers": None if all(slides) else tuple(slides)}


def _their_windows(config: ModelConfig) -> dict[str, Any]:
    if "sliding_window" not in SPELLINGS[config.family].defaults:
        return {}
    theirs: dict[str, Any] = {"sliding_window": config.sliding_window}
    if config.family == "mistral":
        return theirs
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    theirs["layer_types"] = [SLIDING if slide else FULL for slide in slides]
    if config.family == "gemma3":  # transformers makes the mask of a window even where no layer uses it
        return theirs | {"sliding_window": config.sliding_window or config.context_length}
    # Older releases know no layer_types, but from which layer on all slide.
    return theirs | {
        "use_sliding_window": any(slides),
        "max_window_layers": slides.index(True) if any(slides) else config.n_layers,
    }
