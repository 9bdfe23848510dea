"""Mistral 7B (Jiang et al. 2023, arXiv:2310.06825)."""

from __future__ import annotations

from groundup.model.families.base import (
    ALL_LAYERS,
    DEFAULTS,
    KEYS,
    SILU,
    Family,
    Gguf,
    HuggingFace,
    architectures,
    llama_weights,
    published,
)
from groundup.model.families.llama import LLAMA2

_MISTRAL = LLAMA2 | {"context_length": 32_768}
_PAPER = "Jiang et al. 2023, arXiv:2310.06825"
_CARD = "Mistral AI 2024, model card of Mistral 7B v0.3"
_V03 = _MISTRAL | {"vocab_size": 32_768, "rope_theta": 1_000_000.0}

MISTRAL = Family(
    name="mistral",
    title="Mistral",
    about="llama with sliding windows",
    optional=("rope_scaling", "sliding_window"),
    huggingface=HuggingFace(
        model_type="mistral",
        architectures=architectures("Mistral"),
        keys=KEYS,
        defaults=DEFAULTS | {"num_key_value_heads": 8, "sliding_window": 4096},
        fixed=SILU,
        weights=llama_weights,
        windows=ALL_LAYERS,
    ),
    gguf=Gguf("llama", permuted=True, llama3_scaling=True),
    presets=(
        published("mistral-7b-v0.1", _PAPER, 32, 4096, (32, 8), 14_336, **_MISTRAL, sliding_window=4096),
        published("mistral-7b-v0.3", _CARD, 32, 4096, (32, 8), 14_336, **_V03),
    ),
)
