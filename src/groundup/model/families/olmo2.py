"""OLMo 2 (OLMo Team 2025, arXiv:2501.00656)."""

from __future__ import annotations

from typing import Any

from groundup.model.families.base import (
    DEFAULTS,
    KEYS,
    SILU,
    Family,
    Gguf,
    HuggingFace,
    architectures,
    heads_fill_dim,
    llama_weights,
    published,
)

_PAPER = "OLMo Team 2025, arXiv:2501.00656"
_CARD = "Ai2 2025, model card of OLMo 2 {}"
_OLMO2: dict[str, Any] = {
    "vocab_size": 100_352,
    "context_length": 4096,
    "rope_theta": 500_000.0,
    "norm_eps": 1e-6,
    "tie_embeddings": False,
}

OLMO2 = Family(
    name="olmo2",
    title="OLMo 2",
    about="llama with norms after attention and MLP, and QK norm over all heads",
    block="post",
    qk_norm="projection",
    optional=("rope_scaling", "attention_bias"),
    huggingface=HuggingFace(
        model_type="olmo2",
        architectures=architectures("Olmo2"),
        keys=KEYS | {"attention_bias": "attention_bias"},
        defaults=DEFAULTS | {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "attention_bias": False},
        fixed=SILU,
        weights=llama_weights,
    ),
    gguf=Gguf("olmo2", tied=False, unsupported=heads_fill_dim),
    presets=(
        published("olmo2-1b", _CARD.format("1B"), 16, 2048, (16, 16), 8192, **_OLMO2),
        published("olmo2-7b", _PAPER, 32, 4096, (32, 32), 11_008, **_OLMO2),
        published("olmo2-13b", _PAPER, 40, 5120, (40, 40), 13_824, **_OLMO2),
        published("olmo2-32b", _CARD.format("32B"), 64, 5120, (40, 8), 27_648, **_OLMO2),
    ),
)
