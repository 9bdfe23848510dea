"""A model's shape as GGUF metadata, both ways, for the architectures that llama.cpp and groundup have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from groundup.errors import FormatError
from groundup.gguf.header import MetaValue
from groundup.gguf.keys import Keys
from groundup.gguf.rope import read_scaling, write_scaling
from groundup.gguf.weights import OUTPUT, TOKEN_EMBEDDING
from groundup.model import ModelConfig
from groundup.model.families import FAMILIES, GUIDE
from groundup.model.families.base import Family, Gguf

ARCHITECTURE = "general.architecture"

_SIZES = {
    "dim": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "ffn_dim": "feed_forward_length",
    "context_length": "context_length",
}
_RMS_EPS, _LAYER_EPS = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
_LOCAL_BASE = "rope.freq_base_swa"
_BIASES = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_up.bias"}
# What would change what the weights mean, and is read by no family of ours: its key, and the value that is harmless.
_VARIANTS: dict[str, MetaValue] = {
    "expert_count": 0,
    "attn_logit_softcapping": 0.0,
    "attention.clamp_kqv": 0.0,
    "attention.max_alibi_bias": 0.0,
    "attention.scale": 0.0,
    "attention.causal": True,
    "attention.temperature_scale": 0.0,
    "logit_scale": 0.0,
    "residual_scale": 0.0,
    "embedding_scale": 0.0,
    "use_parallel_residual": False,
    "rope.dimension_sections": 0,
}


def agreed_length(config: ModelConfig) -> int:
    """Tokens up to which llama.cpp computes what we do: it knows sliding windows in some families only."""
    if config.sliding_window is None or _declared(config).windows:
        return config.context_length
    return min(config.sliding_window, config.context_length)


def read_config(
    metadata: Mapping[str, MetaValue], tensors: Mapping[str, tuple[int, ...]], rope_factors: Tensor | None
) -> ModelConfig:
    """The model's shape.

    Args:
        tensors: names and shapes of the file's tensors: they say what metadata leaves open (a tied head, biases).
        rope_factors: the tensor `rope_freqs.weight`, if the file has it.

    Raises:
        FormatError: an architecture that is not known, or a variant whose weights would mean something else.
        ConfigError: sizes that cannot be.
    """
    keys = Keys(metadata, str(metadata.get(ARCHITECTURE)))
    family, declared = _family(keys)
    for key, harmless in _VARIANTS.items():
        found = keys.get(key)
        if found is not None and (isinstance(found, np.ndarray) or found != harmless):
            raise keys.refused(key, f"{keys.architecture} models without it are read")
    values: dict[str, Any] = {ours: keys.size(theirs) for ours, theirs in _SIZES.items()}
    # The file must bear out what is counted through below, or 2^32 layers are counted for an hour.
    if f"blk.{values['n_layers'] - 1}.attn_norm.weight" not in tensors:
        raise keys.refused("block_count", "the file holds the tensors of all its layers")
    values["n_kv_heads"] = keys.size("attention.head_count_kv", values["n_heads"])
    values["head_dim"] = _head_dim(keys, values["dim"] // max(values["n_heads"], 1))
    values["norm_eps"] = keys.number(_LAYER_EPS if family.norm == "layer" else _RMS_EPS)
    values["vocab_size"] = tensors[TOKEN_EMBEDDING][0] if TOKEN_EMBEDDING in tensors else keys.size("vocab_size")
    values["tie_embeddings"] = OUTPUT not in tensors
    if family.positions == "rotary":
        values["rope_theta"] = float(keys.number("rope.freq_base", 10_000.0))
        values["rope_scaling"] = read_scaling(keys, rope_factors, values["rope_theta"], values["head_dim"])
    values |= {field: _BIASES[field] in tensors for field in declared.biases}
    values |= {field: keys.number(key, 0.0) or None for field, key in declared.keys.items()}
    if scalar := declared.query_scalar(values["n_layers"], values["dim"], values["n_heads"]):
        values["query_scalar"] = scalar
    if "sliding_window" in family.optional:
        values |= _read_window(keys, family, declared, values["n_layers"])
    return ModelConfig(family=family.name, **values)


def write_config(config: ModelConfig) -> tuple[dict[str, MetaValue], Tensor | None, tuple[str, ...]]:
    """The shape as metadata; the tensor `rope_freqs.weight` where there must be one; and what llama.cpp does otherwise.

    Raises:
        FormatError: a variant that llama.cpp has no word for.
    """
    _check_expressible(config)
    declared = _declared(config)
    architecture = declared.architecture
    keys: dict[str, MetaValue] = {theirs: getattr(config, ours) for ours, theirs in _SIZES.items()}
    keys["vocab_size"] = config.vocab_size
    keys["attention.head_count_kv"] = config.n_kv_heads
    keys[_LAYER_EPS if config.norm == "layer" else _RMS_EPS] = config.norm_eps
    factors: Tensor | None = None
    if config.rotary:
        keys |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
        keys |= {"rope.dimension_count": config.head_dim, "rope.freq_base": float(config.rope_theta)}
        scaling, factors = write_scaling(config)
        keys |= scaling
    notes: tuple[str, ...] = ()
    if config.sliding_window is not None:
        keys |= _write_window(config, declared)
        if agreed_length(config) < config.context_length:
            notes = (
                f"llama.cpp has no sliding windows for {architecture} models: beyond {config.sliding_window:,} tokens "
                "each token sees all before it.",
            )
    given = {key: getattr(config, field) for field, key in declared.keys.items()}
    keys |= {key: float(value) for key, value in given.items() if value is not None}
    return (
        {ARCHITECTURE: architecture} | {f"{architecture}.{key}": value for key, value in keys.items()},
        factors,
        notes,
    )


def _declared(config: ModelConfig) -> Gguf:
    if config.declared.gguf is None:
        raise FormatError(
            f"a model of the family {config.family}",
            rule="llama.cpp has no architecture for it",
            fix="Such a model cannot become a GGUF file; use the model directory.",
        )
    return config.declared.gguf


def _family(keys: Keys) -> tuple[Family, Gguf]:
    declared = [(family, family.gguf) for family in FAMILIES.values() if family.gguf is not None]
    found = [pair for pair in declared if pair[1].architecture == keys.architecture]
    if not found:
        known = sorted({gguf.architecture for _, gguf in declared})
        raise FormatError(
            f"{ARCHITECTURE} = {keys.architecture[:80]!r}",
            rule=f"the known architectures are {', '.join(known)}",
            fix=f"Choose a model of one of them, or add the family: {GUIDE} shows how.",
        )
    # Families may share an architecture: a file with a sliding window is of one that may have it.
    slides = bool(keys.size(_WINDOW, 0))
    return next((pair for pair in found if ("sliding_window" in pair[0].optional) == slides), found[0])


def _head_dim(keys: Keys, default: int) -> int:
    lengths = {key: keys.size(key, default) for key in ("attention.key_length", "attention.value_length")}
    lengths["rope.dimension_count"] = keys.size("rope.dimension_count", lengths["attention.key_length"])
    if len(set(lengths.values())) > 1:
        raise FormatError(
            ", ".join(f"{key} = {length}" for key, length in lengths.items()),
            rule="queries, keys and values have heads of one size, and all of it is rotated",
            fix="Choose a model without this variant.",
        )
    return lengths["attention.key_length"]


def _read_window(keys: Keys, family: Family, declared: Gguf, n_layers: int) -> dict[str, Any]:
    window = keys.size(_WINDOW, 0)
    if not window:
        return {}
    fields: dict[str, Any] = {"sliding_window": window, "sliding_layers": None}
    pattern = keys.get(_PATTERN)
    if isinstance(pattern, np.ndarray):
        fields["sliding_layers"] = tuple(bool(each) for each in pattern[:n_layers])
    elif declared.window_pattern or pattern is not None:
        every = keys.size(_PATTERN, declared.window_pattern)
        fields["sliding_layers"] = tuple(_follow_pattern(every, n_layers))
    if "local_rope_theta" in family.optional:
        fields["local_rope_theta"] = float(keys.number(_LOCAL_BASE, 10_000.0))
    return fields


def _write_window(config: ModelConfig, declared: Gguf) -> dict[str, MetaValue]:
    assert config.sliding_window is not None
    keys: dict[str, MetaValue] = {_WINDOW: config.sliding_window}
    if "local_rope_theta" in config.declared.optional:
        keys[_LOCAL_BASE] = float(config.local_rope_theta or config.rope_theta)
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    if slides != _follow_pattern(declared.window_pattern, config.n_layers):
        keys[_PATTERN] = [int(each) for each in slides]
    return keys


def _follow_pattern(every: int, n_layers: int) -> list[bool]:
    """Of each layer whether it slides: all but each `every`-th; 0: all."""
    return [every == 0 or layer % every < every - 1 for layer in range(n_layers)]


def _check_expressible(config: ModelConfig) -> None:
    declared = _declared(config)
    implied: float = declared.query_scalar(config.n_layers, config.dim, config.n_heads) or config.head_dim
    given = config.query_scalar or config.head_dim
    different = list(declared.inexpressible(config))
    if given != implied:
        different.append((f"query_scalar = {given}", f"llama.cpp divides by sqrt({implied}) in such a model"))
    for field in _BIASES:
        if getattr(config, field) and field not in declared.biases:
            different.append((f"{field} = True", f"llama.cpp's {declared.architecture} has no such biases"))
    for value, rule in different:
        raise FormatError(value, rule=rule, fix="Such a model cannot become a GGUF file; use the model directory.")
