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
from groundup.model import Family, ModelConfig

ARCHITECTURE = "general.architecture"

# Our families in GGUF's words. A file of "llama" is read as a llama, or as a mistral if it has a sliding window.
ARCHITECTURES: dict[Family, str] = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3": "gemma3",
    "gpt2": "gpt2",
}
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
_GEMMA_PATTERN = 6  # of gemma3 files that do not say: every sixth layer sees all
_SOFTCAP = "final_logit_softcapping"
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
    """Tokens up to which llama.cpp computes what we do: of our families it knows sliding windows in Gemma 3 only."""
    if config.sliding_window is None or config.family == "gemma3":
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
    family = _family(keys)
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
    values["norm_eps"] = keys.number(_LAYER_EPS if family == "gpt2" else _RMS_EPS)
    values["vocab_size"] = tensors[TOKEN_EMBEDDING][0] if TOKEN_EMBEDDING in tensors else keys.size("vocab_size")
    values["tie_embeddings"] = OUTPUT not in tensors
    if family != "gpt2":
        values["rope_theta"] = float(keys.number("rope.freq_base", 10_000.0))
        values["rope_scaling"] = read_scaling(keys, rope_factors, values["rope_theta"], values["head_dim"])
    if family in ("llama", "mistral"):
        values["attention_bias"] = "blk.0.attn_q.bias" in tensors
    if family == "llama":
        values["mlp_bias"] = "blk.0.ffn_up.bias" in tensors
    if family == "gemma3":
        values["query_scalar"] = _gemma_query_scalar(values["n_layers"], values["dim"], values["n_heads"])
        values["logit_softcap"] = keys.number(_SOFTCAP, 0.0) or None
    if family not in ("llama", "gpt2"):
        values |= _read_window(keys, family, values["n_layers"])
    return ModelConfig(family=family, **values)


def write_config(config: ModelConfig) -> tuple[dict[str, MetaValue], Tensor | None, tuple[str, ...]]:
    """The shape as metadata; the tensor `rope_freqs.weight` where there must be one; and what llama.cpp does otherwise.

    Raises:
        FormatError: a variant that llama.cpp has no word for.
    """
    _check_expressible(config)
    architecture = ARCHITECTURES[config.family]
    keys: dict[str, MetaValue] = {theirs: getattr(config, ours) for ours, theirs in _SIZES.items()}
    keys["vocab_size"] = config.vocab_size
    keys["attention.head_count_kv"] = config.n_kv_heads
    keys[_LAYER_EPS if config.family == "gpt2" else _RMS_EPS] = config.norm_eps
    factors: Tensor | None = None
    if config.rotary:
        keys |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
        keys |= {"rope.dimension_count": config.head_dim, "rope.freq_base": float(config.rope_theta)}
        scaling, factors = write_scaling(config)
        keys |= scaling
    notes: tuple[str, ...] = ()
    if config.sliding_window is not None:
        keys |= _write_window(config)
        if agreed_length(config) < config.context_length:
            notes = (
                f"llama.cpp has no sliding windows for {architecture} models: beyond {config.sliding_window:,} tokens "
                "each token sees all before it.",
            )
    if config.logit_softcap is not None:
        keys[_SOFTCAP] = float(config.logit_softcap)
    return (
        {ARCHITECTURE: architecture} | {f"{architecture}.{key}": value for key, value in keys.items()},
        factors,
        notes,
    )


def _family(keys: Keys) -> Family:
    families: list[Family] = [family for family, name in ARCHITECTURES.items() if name == keys.architecture]
    if not families:
        raise FormatError(
            f"{ARCHITECTURE} = {keys.architecture[:80]!r}",
            rule=f"the known architectures are {', '.join(sorted(set(ARCHITECTURES.values())))}",
            fix="Choose a model of one of them.",
        )
    return families[-1] if keys.size(_WINDOW, 0) else families[0]


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


def _read_window(keys: Keys, family: Family, n_layers: int) -> dict[str, Any]:
    window = keys.size(_WINDOW, 0)
    if not window:
        return {}
    pattern, gemma = keys.get(_PATTERN), family == "gemma3"
    slides: tuple[bool, ...] | None = None
    if isinstance(pattern, np.ndarray):
        slides = tuple(bool(each) for each in pattern[:n_layers])
    elif gemma or pattern is not None:
        every = keys.size(_PATTERN, _GEMMA_PATTERN)
        slides = tuple(every == 0 or layer % every < every - 1 for layer in range(n_layers))
    local = {"local_rope_theta": float(keys.number(_LOCAL_BASE, 10_000.0))} if gemma else {}
    return {"sliding_window": window, "sliding_layers": slides} | local


def _write_window(config: ModelConfig) -> dict[str, MetaValue]:
    assert config.sliding_window is not None
    keys: dict[str, MetaValue] = {_WINDOW: config.sliding_window}
    if config.family == "gemma3":
        keys[_LOCAL_BASE] = float(config.local_rope_theta or config.rope_theta)
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    every = _GEMMA_PATTERN if config.family == "gemma3" else 0
    if slides != [every == 0 or layer % every < every - 1 for layer in range(config.n_layers)]:
        keys[_PATTERN] = [int(each) for each in slides]
    return keys


def _gemma_query_scalar(n_layers: int, dim: int, n_heads: int) -> float | None:
    """Gemma 3's 27B divides by dim / n_heads, not by head_dim; no file says so: llama.cpp knows it by its 62 layers."""
    return dim // max(n_heads, 1) if n_layers == 62 else None


def _check_expressible(config: ModelConfig) -> None:
    implied: float = config.head_dim
    if config.family == "gemma3":
        implied = _gemma_query_scalar(config.n_layers, config.dim, config.n_heads) or config.head_dim
    given = config.query_scalar or config.head_dim
    unsaid: list[tuple[bool, str, str]] = [
        (given != implied, f"query_scalar = {given}", f"llama.cpp divides by sqrt({implied}) in such a model"),
        (
            config.attention_bias and config.family not in ("llama", "mistral"),
            "attention_bias = True",
            f"llama.cpp's {config.family} has no bias behind attention",
        ),
        (
            config.family == "gemma3"
            and config.sliding_window is not None
            and config.local_rope_theta is None
            and config.rope_scaling is not None,
            "rope_scaling without local_rope_theta",
            "llama.cpp leaves the frequencies of layers that slide as they are",
        ),
    ]
    for is_so, value, rule in unsaid:
        if is_so:
            raise FormatError(value, rule=rule, fix="Such a model cannot become a GGUF file; use the model directory.")
