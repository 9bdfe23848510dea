"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv:2412.15115)."""

from __future__ import annotations

from typing import Any

from groundup.model.families.base import (
    DEFAULTS,
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

QWEN_DEFAULTS = DEFAULTS | {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}

_PAPER = "Yang et al. 2024, arXiv:2412.15115"
_QWEN25: dict[str, Any] = {
    "vocab_size": 152_064,
    "context_length": 131_072,
    "rope_theta": 1_000_000.0,
    "norm_eps": 1e-6,
    "tie_embeddings": False,
}
_SMALL = _QWEN25 | {"vocab_size": 151_936, "tie_embeddings": True}
_SHORT = _SMALL | {"context_length": 32_768}
_LARGE = _QWEN25 | {"norm_eps": 1e-5}

QWEN2 = Family(
    name="qwen2",
    title="Qwen2",
    about="llama with biases on queries, keys and values",
    qkv_bias=True,
    optional=("rope_scaling", "sliding_window", "sliding_layers"),
    huggingface=HuggingFace(
        model_type="qwen2",
        architectures=architectures("Qwen2"),
        keys=KEYS,
        defaults=QWEN_DEFAULTS,
        fixed=SILU,
        weights=llama_weights,
        windows=FROM_LAYER_ON,
    ),
    gguf=Gguf("qwen2"),
    presets=(
        published("qwen2.5-0.5b", _PAPER, 24, 896, (14, 2), 4864, **_SHORT),
        published("qwen2.5-1.5b", _PAPER, 28, 1536, (12, 2), 8960, **_SMALL),
        published("qwen2.5-3b", _PAPER, 36, 2048, (16, 2), 11_008, **_SHORT),
        published("qwen2.5-7b", _PAPER, 28, 3584, (28, 4), 18_944, **_QWEN25),
        published("qwen2.5-14b", _PAPER, 48, 5120, (40, 8), 13_824, **_LARGE),
        published("qwen2.5-32b", _PAPER, 64, 5120, (40, 8), 27_648, **_LARGE),
        published("qwen2.5-72b", _PAPER, 80, 8192, (64, 8), 29_568, **_LARGE),
    ),
)
