"""Qwen3 (Yang et al. 2025, arXiv:2505.09388)."""

from __future__ import annotations

from typing import Any

from groundup.model.families.base import (
    FROM_LAYER_ON,
    KEYS,
    SILU,
    Family,
    Gguf,
    HuggingFace,
    architectures,
    llama_weights,
    published,
)
from groundup.model.families.qwen2 import QWEN_DEFAULTS

_PAPER = "Yang et al. 2025, arXiv:2505.09388"
_QWEN3: dict[str, Any] = {
    "vocab_size": 151_936,
    "context_length": 40_960,
    "rope_theta": 1_000_000.0,
    "norm_eps": 1e-6,
    "tie_embeddings": False,
}
_SMALL = _QWEN3 | {"tie_embeddings": True}

QWEN3 = Family(
    name="qwen3",
    title="Qwen3",
    about="llama with QK norm",
    qk_norm="head",
    optional=("rope_scaling", "sliding_window", "sliding_layers", "attention_bias"),
    huggingface=HuggingFace(
        model_type="qwen3",
        architectures=architectures("Qwen3"),
        keys=KEYS | {"attention_bias": "attention_bias"},
        defaults=QWEN_DEFAULTS | {"head_dim": 128, "attention_bias": False},
        fixed=SILU,
        weights=llama_weights,
        windows=FROM_LAYER_ON,
    ),
    gguf=Gguf("qwen3"),
    presets=(
        published("qwen3-0.6b", _PAPER, 28, 1024, (16, 8), 3072, 128, **_SMALL),
        published("qwen3-1.7b", _PAPER, 28, 2048, (16, 8), 6144, 128, **_SMALL),
        published("qwen3-4b", _PAPER, 36, 2560, (32, 8), 9728, 128, **_SMALL),
        published("qwen3-8b", _PAPER, 36, 4096, (32, 8), 12_288, 128, **_QWEN3),
        published("qwen3-14b", _PAPER, 40, 5120, (40, 8), 17_408, 128, **_QWEN3),
        published("qwen3-32b", _PAPER, 64, 5120, (64, 8), 25_600, 128, **_QWEN3),
    ),
)
