"""Small configs of all model families, with the specific features of each family enabled."""

from __future__ import annotations

from typing import Any

from groundup.model import ModelConfig
from groundup.model.families import FAMILIES

# Fields per family. Per-layer fields have 3 entries.
_VARIANTS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 7},
    "qwen2": {"sliding_window": 7, "sliding_layers": (False, True, True)},
    "gemma3": {
        "sliding_window": 7,
        "sliding_layers": (True, True, False),
        "local_rope_theta": 300.0,
        "query_scalar": 24.0,
        "logit_softcap": 2.0,
    },
    "gemma2": {
        "sliding_window": 7,
        "sliding_layers": (True, False, True),
        "query_scalar": 24.0,
        "attention_softcap": 0.5,
        "logit_softcap": 2.0,
    },
    "gpt_neox": {"rotary_fraction": 0.25},
    "olmo2": {"attention_bias": True},
    "phi3": {"rotary_fraction": 0.5, "sliding_window": 7},
    "granite": {
        "query_scalar": 64.0,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 0.25,
        "mlp_bias": True,
    },
    "smollm3": {"rotary_layers": (True, False, True), "sliding_window": 7, "sliding_layers": (False, True, False)},
}
# Families without a sequence classification class in transformers.
NO_CLASSIFIER = ("granite",)


def kv_heads(family: str, n_heads: int, fewer: int) -> int:
    """Return `n_heads` for a family with multi-head attention only, otherwise `fewer`."""
    return n_heads if FAMILIES[family].multi_head_only else fewer


def variants(family: str, n_layers: int = 3) -> dict[str, Any]:
    """Return the family-specific fields for up to 3 layers. They affect texts of more than 8 tokens."""
    fields = _VARIANTS.get(family, {})
    return {name: value[:n_layers] if isinstance(value, tuple) else value for name, value in fields.items()}


def small(family: str, **changes: Any) -> ModelConfig:
    """Return a config with 3 layers, 4 heads of size 16, context length 32, and the family-specific fields."""
    shape: dict[str, Any] = {
        "dim": 64,
        "n_layers": 3,
        "n_heads": 4,
        "n_kv_heads": kv_heads(family, 4, 2),
        "head_dim": 16,
        "ffn_dim": 160,
        "vocab_size": 300,
        "context_length": 32,
        "rope_theta": 5_000.0,
        "norm_eps": 1e-5,
    }
    shape |= variants(family, changes.get("n_layers", 3))
    return ModelConfig(family=family, **shape | changes)
