"""Gemma 2 (Gemma Team 2024, arXiv:2408.00118)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from groundup.model.families.base import (
    GELU_TANH,
    KEYS,
    Family,
    Gguf,
    HuggingFace,
    HuggingFaceWindows,
    Key,
    Published,
    architectures,
    every_nth_is_full,
    layer_types,
    llama_weights,
    published,
    read_layer_types,
)

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig

GEMMA_KEYS = KEYS | {
    "attention_bias": "attention_bias",
    "query_scalar": "query_pre_attn_scalar",
    "logit_softcap": "final_logit_softcapping",
}
_PATTERN = 2  # every second layer attends to all tokens
_PAPER = "Gemma Team 2024, arXiv:2408.00118"


def gemma_windows(pattern: int) -> HuggingFaceWindows:
    """Return the conversion of sliding windows for models in which every `pattern`-th layer has full attention.

    If `config.json` contains the key `sliding_window_pattern`, the value of the key is used instead of `pattern`.
    """

    def read(config: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
        every = given.get("sliding_window_pattern", pattern)
        return read_layer_types(config, given, every_nth_is_full(every, config.n_layers))

    def write(config: ModelConfig) -> dict[str, Any]:
        # transformers requires a window size for its attention mask, even if no layer has a sliding window.
        return {"sliding_window": config.sliding_window or config.context_length, "layer_types": layer_types(config)}

    return HuggingFaceWindows(read, write)


def query_pre_attn_scalar(config: ModelConfig) -> dict[str, Any]:
    """Return the `config.json` key of Gemma's attention scale. It is an integer if possible, as in transformers."""
    scalar = config.query_scalar or config.head_dim
    return {"query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar}


def divides_by_dim_per_head(n_layers: int) -> Any:
    """Return a function for `Gguf.implied` that describes how llama.cpp scales attention scores.

    For models with this number of layers (the 27B models), llama.cpp divides scores by sqrt(dim / n_heads) instead of
    sqrt(head_dim).
    """
    return lambda layers, dim, n_heads: {"query_scalar": dim // max(n_heads, 1)} if layers == n_layers else {}


def _unsupported(config: ModelConfig) -> Iterator[tuple[str, str]]:
    slides = [config.slides(layer) for layer in range(config.n_layers)]
    if config.sliding_window is not None and slides != every_nth_is_full(_PATTERN, config.n_layers):
        yield (
            f"sliding_layers = {config.sliding_layers}",
            "llama.cpp supports only a sliding window in every second layer",
        )


def _gemma2(name: str, n_layers: int, dim: int, heads: tuple[int, int], ffn_dim: int, head_dim: int) -> Published:
    fields: dict[str, Any] = {
        "vocab_size": 256_000,
        "context_length": 8192,
        "norm_eps": 1e-6,
        "tie_embeddings": True,
        "query_scalar": 256.0 if head_dim == 256 else float(dim // heads[0]),
        "sliding_window": 4096,
        "sliding_layers": tuple(every_nth_is_full(_PATTERN, n_layers)),
        "attention_softcap": 50.0,
        "logit_softcap": 30.0,
    }
    return published(name, _PAPER, n_layers, dim, heads, ffn_dim, head_dim, **fields)


GEMMA2 = Family(
    name="gemma2",
    title="Gemma 2",
    about="llama with GELU, norms before and after attention and MLP, scaled embeddings, softcapped scores and logits",
    norm="rms_plus_one",
    block="sandwich",
    activation="gelu_tanh",
    scaled_embeddings=True,
    optional=(
        "rope_scaling",
        "sliding_window",
        "sliding_layers",
        "attention_bias",
        "query_scalar",
        "logit_softcap",
        "attention_softcap",
    ),
    huggingface=HuggingFace(
        model_type="gemma2",
        architectures=architectures("Gemma2"),
        keys=GEMMA_KEYS | {"attention_softcap": "attn_logit_softcapping"},
        defaults={
            "vocab_size": 256_000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "query_pre_attn_scalar": 256,
            "final_logit_softcapping": 30.0,
            "attn_logit_softcapping": 50.0,
            "sliding_window": 4096,
            "rope_theta": 10_000.0,
        },
        fixed={"hidden_activation": GELU_TANH, "use_bidirectional_attention": (None, False)},
        weights=llama_weights,
        windows=gemma_windows(_PATTERN),
        write=query_pre_attn_scalar,
    ),
    gguf=Gguf(
        "gemma2",
        keys={
            "attention_softcap": Key("attn_logit_softcapping", missing=50.0),
            "logit_softcap": Key("final_logit_softcapping", missing=30.0),
        },
        windows=True,
        window_pattern=_PATTERN,
        default_window=4096,
        tied=True,
        implied=divides_by_dim_per_head(46),
        unsupported=_unsupported,
    ),
    presets=(
        _gemma2("gemma2-2b", 26, 2304, (8, 4), 9216, 256),
        _gemma2("gemma2-9b", 42, 3584, (16, 8), 14_336, 256),
        _gemma2("gemma2-27b", 46, 4608, (32, 16), 36_864, 128),
    ),
)
