"""Gemma 3 (Gemma Team 2025, arXiv:2503.19786)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from groundup.model.families.base import (
    GELU_TANH,
    Family,
    Gguf,
    HuggingFace,
    Key,
    Published,
    Wrapper,
    architectures,
    every_nth_is_full,
    llama_weights,
    published,
)
from groundup.model.families.gemma2 import GEMMA_KEYS, divides_by_dim_per_head, gemma_windows, query_pre_attn_scalar

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig

_PATTERN = 6  # every sixth layer attends to all tokens
_PAPER = "Gemma Team 2025, arXiv:2503.19786"
_LONG = {
    "vocab_size": 262_208,
    "context_length": 131_072,
    "rope_scaling": {"kind": "linear", "factor": 8.0},
}


def _unsupported(config: ModelConfig) -> Iterator[tuple[str, str]]:
    if config.sliding_window is not None and config.local_rope_theta is None and config.rope_scaling is not None:
        reason = "llama.cpp does not scale the RoPE frequencies of sliding-window layers"
        yield "rope_scaling without local_rope_theta", reason


def _gemma3(
    name: str, n_layers: int, dim: int, heads: tuple[int, int], ffn_dim: int, window: int, **more: Any
) -> Published:
    fields: dict[str, Any] = {
        "vocab_size": 262_144,
        "context_length": 32_768,
        "norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "local_rope_theta": 10_000.0,
        "tie_embeddings": True,
        "head_dim": 256,
        "query_scalar": 256.0,
        "sliding_window": window,
        "sliding_layers": tuple(every_nth_is_full(_PATTERN, n_layers)),
    }
    shape = published(name, _PAPER, n_layers, dim, heads, ffn_dim, **fields | more)
    return replace(shape, note="text model only" if "rope_scaling" in more else "")


GEMMA3 = Family(
    name="gemma3",
    title="Gemma 3",
    about="qwen3 with GELU, norms before and after attention and MLP, scaled embeddings, and two RoPE bases",
    norm="rms_plus_one",
    block="sandwich",
    qk_norm="head",
    activation="gelu_tanh",
    scaled_embeddings=True,
    optional=(
        "rope_scaling",
        "local_rope_theta",
        "sliding_window",
        "sliding_layers",
        "attention_bias",
        "query_scalar",
        "logit_softcap",
    ),
    huggingface=HuggingFace(
        model_type="gemma3_text",
        architectures=architectures("Gemma3", "Gemma3Text"),
        keys=GEMMA_KEYS,
        defaults={
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
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
        },
        # transformers accepts the key attn_logit_softcapping for Gemma 3, but ignores it.
        fixed={"hidden_activation": GELU_TANH, "use_bidirectional_attention": (False,)},
        weights=llama_weights,
        rope_by_layer_type=True,
        windows=gemma_windows(_PATTERN),
        within=Wrapper(
            "gemma3",
            {
                "language_model.model.": "model.",
                "language_model.lm_head.": "lm_head.",
                "model.language_model.": "model.",
            },
            ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
        ),
        write=query_pre_attn_scalar,
    ),
    gguf=Gguf(
        "gemma3",
        keys={"logit_softcap": Key("final_logit_softcapping")},
        windows=True,
        window_pattern=_PATTERN,
        implied=divides_by_dim_per_head(62),
        unsupported=_unsupported,
    ),
    presets=(
        _gemma3("gemma3-270m", 18, 640, (4, 1), 2048, 512),
        _gemma3("gemma3-1b", 26, 1152, (4, 1), 6912, 512),
        _gemma3("gemma3-4b", 34, 2560, (8, 4), 10_240, 1024, **_LONG),
        _gemma3("gemma3-12b", 48, 3840, (16, 8), 15_360, 1024, **_LONG),
        _gemma3("gemma3-27b", 62, 5376, (32, 16), 21_504, 1024, head_dim=128, query_scalar=168.0, **_LONG),
    ),
)
