"""Llama 1 to 3.2 and SmolLM2 (Touvron et al. 2023, arXiv:2302.13971)."""

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
    llama_weights,
    published,
)


def _llama3_scaling(factor: float) -> dict[str, Any]:
    return {"kind": "llama3", "factor": factor, "original_context_length": 8192}


_LLAMA: dict[str, Any] = {"vocab_size": 32_000, "context_length": 2048, "norm_eps": 1e-6, "tie_embeddings": False}
LLAMA2 = _LLAMA | {"context_length": 4096, "norm_eps": 1e-5}
_LLAMA3 = LLAMA2 | {"vocab_size": 128_256, "context_length": 8192, "rope_theta": 500_000.0}
_LLAMA31 = _LLAMA3 | {"context_length": 131_072, "rope_scaling": _llama3_scaling(8.0)}
_LLAMA32 = _LLAMA31 | {"tie_embeddings": True, "rope_scaling": _llama3_scaling(32.0)}
_SMOLLM2: dict[str, Any] = {"vocab_size": 49_152, "context_length": 8192, "norm_eps": 1e-5, "tie_embeddings": True}
_LLAMA_PAPER = "Touvron et al. 2023, arXiv:2302.13971"
_LLAMA2_PAPER = "Touvron et al. 2023, arXiv:2307.09288"
_LLAMA3_PAPER = "Grattafiori et al. 2024, arXiv:2407.21783"
_LLAMA32_CARD = "Meta 2024, model cards of Llama 3.2"
_SMOLLM2_PAPER = "Ben Allal et al. 2025, arXiv:2502.02737"

LLAMA = Family(
    name="llama",
    title="Llama",
    about="RoPE, RMSNorm, SwiGLU and GQA",
    optional=("rope_scaling", "attention_bias", "mlp_bias"),
    huggingface=HuggingFace(
        model_type="llama",
        architectures=architectures("Llama"),
        keys=KEYS | {"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
        defaults=DEFAULTS | {"max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False},
        fixed=SILU,
        weights=llama_weights,
    ),
    gguf=Gguf("llama", biases=("attention_bias", "mlp_bias"), permuted=True, llama3_scaling=True),
    presets=(
        published("llama-7b", _LLAMA_PAPER, 32, 4096, (32, 32), 11_008, **_LLAMA),
        published("llama-13b", _LLAMA_PAPER, 40, 5120, (40, 40), 13_824, **_LLAMA),
        published("llama-33b", _LLAMA_PAPER, 60, 6656, (52, 52), 17_920, **_LLAMA),
        published("llama-65b", _LLAMA_PAPER, 80, 8192, (64, 64), 22_016, **_LLAMA | {"norm_eps": 1e-5}),
        published("llama2-7b", _LLAMA2_PAPER, 32, 4096, (32, 32), 11_008, **LLAMA2),
        published("llama2-13b", _LLAMA2_PAPER, 40, 5120, (40, 40), 13_824, **LLAMA2),
        published("llama2-70b", _LLAMA2_PAPER, 80, 8192, (64, 8), 28_672, **LLAMA2),
        published("llama3-8b", _LLAMA3_PAPER, 32, 4096, (32, 8), 14_336, **_LLAMA3),
        published("llama3-70b", _LLAMA3_PAPER, 80, 8192, (64, 8), 28_672, **_LLAMA3),
        published("llama3.1-8b", _LLAMA3_PAPER, 32, 4096, (32, 8), 14_336, **_LLAMA31),
        published("llama3.1-70b", _LLAMA3_PAPER, 80, 8192, (64, 8), 28_672, **_LLAMA31),
        published("llama3.1-405b", _LLAMA3_PAPER, 126, 16_384, (128, 8), 53_248, **_LLAMA31),
        published("llama3.2-1b", _LLAMA32_CARD, 16, 2048, (32, 8), 8192, **_LLAMA32),
        published("llama3.2-3b", _LLAMA32_CARD, 28, 3072, (24, 8), 8192, **_LLAMA32),
        published("smollm2-135m", _SMOLLM2_PAPER, 30, 576, (9, 3), 1536, rope_theta=100_000.0, **_SMOLLM2),
        published("smollm2-360m", _SMOLLM2_PAPER, 32, 960, (15, 5), 2560, rope_theta=100_000.0, **_SMOLLM2),
        published("smollm2-1.7b", _SMOLLM2_PAPER, 24, 2048, (32, 32), 8192, rope_theta=130_000.0, **_SMOLLM2),
    ),
)
