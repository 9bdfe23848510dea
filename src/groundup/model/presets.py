"""Published shapes: the architectures of models that people know by name, as `ModelConfig`.

Only shapes: a preset has no weights, and `groundup pretrain` fills it with random ones. Every row is what the paper or
the published configuration of that model says, so that parameter counts are exact (tests/unit/model/test_presets.py).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Any

from groundup.errors import ConfigError
from groundup.model.config import ModelConfig, RopeScaling


@dataclass(frozen=True, slots=True)
class Preset:
    """A shape with a name.

    Attributes:
        source: where it was published.
        note: in what it differs from the published model; empty where it does not.
    """

    name: str
    config: ModelConfig
    source: str
    note: str = ""


def preset(name: str) -> Preset:
    """The preset of that name; letter case does not matter.

    Raises:
        ConfigError: there is none; the nearest name is proposed.
    """
    if found := PRESETS.get(name.lower()):
        return found
    near = difflib.get_close_matches(name.lower(), PRESETS, n=1)
    raise ConfigError(
        f"preset {name!r}",
        rule="a preset is one of the published shapes",
        fix=f"Did you mean {near[0]}?" if near else "groundup model list shows them all.",
    )


_GPT2_PAPER = "Radford et al. 2019, Language Models are Unsupervised Multitask Learners"
_GPT3_PAPER = "Brown et al. 2020, arXiv:2005.14165, table 2.1"
_SPARSE = "dense: the published model alternated dense and locally banded sparse attention"


def _gpt2(name: str, n_layers: int, dim: int, n_heads: int, context_length: int = 1024) -> Preset:
    config = ModelConfig(
        "gpt2", dim, n_layers, n_heads, n_heads, dim // n_heads, 4 * dim, 50_257, context_length, norm_eps=1e-5
    )
    return Preset(name, config, _GPT2_PAPER)


def _gpt3(name: str, n_layers: int, dim: int, n_heads: int, note: str = "") -> Preset:
    shape = _gpt2(name, n_layers, dim, n_heads, context_length=2048)
    return replace(shape, source=_GPT3_PAPER, note="; ".join(filter(None, (_SPARSE, note))))


_LLAMA = ModelConfig(
    "llama", 4096, 32, 32, 32, 128, 11_008, 32_000, 2048, rope_theta=10_000.0, norm_eps=1e-6, tie_embeddings=False
)
_LLAMA2 = replace(_LLAMA, context_length=4096, norm_eps=1e-5)
_LLAMA3 = replace(_LLAMA2, vocab_size=128_256, context_length=8192, rope_theta=500_000.0)
_LLAMA31 = replace(_LLAMA3, context_length=131_072, rope_scaling=RopeScaling("llama3", 8.0, 8192))
_LLAMA32 = replace(_LLAMA31, tie_embeddings=True, rope_scaling=RopeScaling("llama3", 32.0, 8192))
_SMOLLM2 = replace(_LLAMA, vocab_size=49_152, context_length=8192, norm_eps=1e-5, tie_embeddings=True)
_MISTRAL = replace(_LLAMA2, family="mistral", context_length=32_768)
_QWEN25 = replace(_LLAMA, family="qwen2", vocab_size=152_064, context_length=131_072, rope_theta=1_000_000.0)
_QWEN3 = replace(_LLAMA, family="qwen3", vocab_size=151_936, context_length=40_960, rope_theta=1_000_000.0)
_GEMMA3 = replace(
    _LLAMA,
    family="gemma3",
    context_length=32_768,
    rope_theta=1_000_000.0,
    local_rope_theta=10_000.0,
    tie_embeddings=True,
)


def _shape(
    like: ModelConfig,
    source: str,
    name: str,
    n_layers: int,
    dim: int,
    heads: tuple[int, int],
    ffn_dim: int,
    head_dim: int | None = None,
    **changes: Any,
) -> Preset:
    """
    Args:
        heads: of queries, and of keys and values.
        head_dim: where it is not dim / heads.
    """
    size = {"n_layers": n_layers, "dim": dim, "n_heads": heads[0], "n_kv_heads": heads[1], "ffn_dim": ffn_dim}
    size["head_dim"] = head_dim or dim // heads[0]
    return Preset(name, replace(like, **size | changes), source)


def _gemma3(
    name: str, n_layers: int, dim: int, heads: tuple[int, int], ffn_dim: int, window: int, **more: Any
) -> Preset:
    """Five layers that see a window, then one that sees all."""
    sliding = tuple((layer + 1) % 6 != 0 for layer in range(n_layers))
    like = replace(_GEMMA3, n_layers=n_layers, sliding_window=window, sliding_layers=sliding)
    changes = {"head_dim": 256, "vocab_size": 262_144, "query_scalar": 256.0} | more
    shape = _shape(like, _GEMMA3_PAPER, name, n_layers, dim, heads, ffn_dim, **changes)
    return replace(shape, note="the text model alone" if "rope_scaling" in more else "")


_LLAMA_PAPER = "Touvron et al. 2023, arXiv:2302.13971"
_LLAMA2_PAPER = "Touvron et al. 2023, arXiv:2307.09288"
_LLAMA3_PAPER = "Grattafiori et al. 2024, arXiv:2407.21783"
_LLAMA32_CARD = "Meta 2024, model cards of Llama 3.2"
_SMOLLM2_PAPER = "Ben Allal et al. 2025, arXiv:2502.02737"
_MISTRAL_PAPER = "Jiang et al. 2023, arXiv:2310.06825"
_QWEN25_PAPER = "Yang et al. 2024, arXiv:2412.15115"
_QWEN3_PAPER = "Yang et al. 2025, arXiv:2505.09388"
_GEMMA3_PAPER = "Gemma Team 2025, arXiv:2503.19786"
_SMALL_QWEN25 = {"vocab_size": 151_936, "tie_embeddings": True}
_LONG_GEMMA3 = {"vocab_size": 262_208, "context_length": 131_072, "rope_scaling": RopeScaling("linear", 8.0)}

PRESETS: dict[str, Preset] = {
    each.name: each
    for each in (
        _gpt2("gpt2", 12, 768, 12),
        _gpt2("gpt2-medium", 24, 1024, 16),
        _gpt2("gpt2-large", 36, 1280, 20),
        _gpt2("gpt2-xl", 48, 1600, 25),
        _gpt3("gpt3-125m", 12, 768, 12),
        _gpt3("gpt3-350m", 24, 1024, 16),
        _gpt3("gpt3-760m", 24, 1536, 16),
        _gpt3("gpt3-1.3b", 24, 2048, 16, "16 heads of 128; the table prints 24, which are wider than the model"),
        _gpt3("gpt3-2.7b", 32, 2560, 32),
        _gpt3("gpt3-6.7b", 32, 4096, 32),
        _gpt3("gpt3-13b", 40, 5120, 40, "5,120 wide, 40 heads of 128; the table prints 5,140"),
        _gpt3("gpt3-175b", 96, 12_288, 96),
        _shape(_LLAMA, _LLAMA_PAPER, "llama-7b", 32, 4096, (32, 32), 11_008),
        _shape(_LLAMA, _LLAMA_PAPER, "llama-13b", 40, 5120, (40, 40), 13_824),
        _shape(_LLAMA, _LLAMA_PAPER, "llama-33b", 60, 6656, (52, 52), 17_920),
        _shape(_LLAMA, _LLAMA_PAPER, "llama-65b", 80, 8192, (64, 64), 22_016, norm_eps=1e-5),
        _shape(_LLAMA2, _LLAMA2_PAPER, "llama2-7b", 32, 4096, (32, 32), 11_008),
        _shape(_LLAMA2, _LLAMA2_PAPER, "llama2-13b", 40, 5120, (40, 40), 13_824),
        _shape(_LLAMA2, _LLAMA2_PAPER, "llama2-70b", 80, 8192, (64, 8), 28_672),
        _shape(_LLAMA3, _LLAMA3_PAPER, "llama3-8b", 32, 4096, (32, 8), 14_336),
        _shape(_LLAMA3, _LLAMA3_PAPER, "llama3-70b", 80, 8192, (64, 8), 28_672),
        _shape(_LLAMA31, _LLAMA3_PAPER, "llama3.1-8b", 32, 4096, (32, 8), 14_336),
        _shape(_LLAMA31, _LLAMA3_PAPER, "llama3.1-70b", 80, 8192, (64, 8), 28_672),
        _shape(_LLAMA31, _LLAMA3_PAPER, "llama3.1-405b", 126, 16_384, (128, 8), 53_248),
        _shape(_LLAMA32, _LLAMA32_CARD, "llama3.2-1b", 16, 2048, (32, 8), 8192),
        _shape(_LLAMA32, _LLAMA32_CARD, "llama3.2-3b", 28, 3072, (24, 8), 8192),
        _shape(_SMOLLM2, _SMOLLM2_PAPER, "smollm2-135m", 30, 576, (9, 3), 1536, rope_theta=100_000.0),
        _shape(_SMOLLM2, _SMOLLM2_PAPER, "smollm2-360m", 32, 960, (15, 5), 2560, rope_theta=100_000.0),
        _shape(_SMOLLM2, _SMOLLM2_PAPER, "smollm2-1.7b", 24, 2048, (32, 32), 8192, rope_theta=130_000.0),
        _shape(_MISTRAL, _MISTRAL_PAPER, "mistral-7b-v0.1", 32, 4096, (32, 8), 14_336, sliding_window=4096),
        _shape(
            _MISTRAL,
            "Mistral AI 2024, model card of Mistral 7B v0.3",
            "mistral-7b-v0.3",
            32,
            4096,
            (32, 8),
            14_336,
            vocab_size=32_768,
            rope_theta=1_000_000.0,
        ),
        _shape(_QWEN25, _QWEN25_PAPER, "qwen2.5-0.5b", 24, 896, (14, 2), 4864, context_length=32_768, **_SMALL_QWEN25),
        _shape(_QWEN25, _QWEN25_PAPER, "qwen2.5-1.5b", 28, 1536, (12, 2), 8960, **_SMALL_QWEN25),
        _shape(_QWEN25, _QWEN25_PAPER, "qwen2.5-3b", 36, 2048, (16, 2), 11_008, context_length=32_768, **_SMALL_QWEN25),
        _shape(_QWEN25, _QWEN25_PAPER, "qwen2.5-7b", 28, 3584, (28, 4), 18_944),
        _shape(_QWEN25, _QWEN25_PAPER, "qwen2.5-14b", 48, 5120, (40, 8), 13_824, norm_eps=1e-5),
        _shape(_QWEN25, _QWEN25_PAPER, "qwen2.5-32b", 64, 5120, (40, 8), 27_648, norm_eps=1e-5),
        _shape(_QWEN25, _QWEN25_PAPER, "qwen2.5-72b", 80, 8192, (64, 8), 29_568, norm_eps=1e-5),
        _shape(_QWEN3, _QWEN3_PAPER, "qwen3-0.6b", 28, 1024, (16, 8), 3072, 128, tie_embeddings=True),
        _shape(_QWEN3, _QWEN3_PAPER, "qwen3-1.7b", 28, 2048, (16, 8), 6144, 128, tie_embeddings=True),
        _shape(_QWEN3, _QWEN3_PAPER, "qwen3-4b", 36, 2560, (32, 8), 9728, 128, tie_embeddings=True),
        _shape(_QWEN3, _QWEN3_PAPER, "qwen3-8b", 36, 4096, (32, 8), 12_288, 128),
        _shape(_QWEN3, _QWEN3_PAPER, "qwen3-14b", 40, 5120, (40, 8), 17_408, 128),
        _shape(_QWEN3, _QWEN3_PAPER, "qwen3-32b", 64, 5120, (64, 8), 25_600, 128),
        _gemma3("gemma3-270m", 18, 640, (4, 1), 2048, 512),
        _gemma3("gemma3-1b", 26, 1152, (4, 1), 6912, 512),
        _gemma3("gemma3-4b", 34, 2560, (8, 4), 10_240, 1024, **_LONG_GEMMA3),
        _gemma3("gemma3-12b", 48, 3840, (16, 8), 15_360, 1024, **_LONG_GEMMA3),
        _gemma3("gemma3-27b", 62, 5376, (32, 16), 21_504, 1024, head_dim=128, query_scalar=168.0, **_LONG_GEMMA3),
    )
}
