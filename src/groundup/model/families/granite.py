"""Granite 3 (Granite Team, IBM 2024, Granite 3.0 Language Models), with the multipliers of muP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from groundup.core.errors import FormatError
from groundup.model.families.base import (
    DEFAULTS,
    KEYS,
    SILU,
    Family,
    Gguf,
    HuggingFace,
    Key,
    architectures,
    llama_weights,
    published,
)

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig

_MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "logits_scaling")


def _read(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    values |= {name: None if given[name] == 1 else given[name] for name in _MULTIPLIERS}
    scale = given["attention_multiplier"]
    if type(scale) not in (int, float) or not scale > 0:
        fix = "Correct config.json, or download the model again."
        raise FormatError(f"attention_multiplier = {scale!r}"[:200], rule="it must be a positive number", fix=fix)
    values["query_scalar"] = scale**-2


def _write(config: ModelConfig) -> dict[str, Any]:
    multipliers = {name: getattr(config, name) or 1.0 for name in _MULTIPLIERS}
    # Round to 15 digits, because the conversion from scale to scale^-2 and back may change the last bit.
    return multipliers | {"attention_multiplier": float(f"{config.attention_scale:.15g}")}


_PAPER = "Granite Team, IBM 2024, Granite 3.0 Language Models"
_GRANITE3: dict[str, Any] = {
    "vocab_size": 49_155,
    "context_length": 4096,
    "norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "tie_embeddings": True,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
}
_2B = _GRANITE3 | {"query_scalar": 64.0**2, "logits_scaling": 8.0}
_8B = _GRANITE3 | {"query_scalar": 128.0**2, "logits_scaling": 16.0}

GRANITE = Family(
    name="granite",
    title="Granite",
    about="llama with multipliers for embeddings, attention scores, residual branches and logits",
    optional=("rope_scaling", "attention_bias", "mlp_bias", "query_scalar", *_MULTIPLIERS),
    huggingface=HuggingFace(
        model_type="granite",
        # transformers does not have a classifier class for this architecture, so only groundup can load classifiers.
        architectures=architectures("Granite"),
        keys=KEYS | {"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
        defaults=DEFAULTS
        | {"max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False, "attention_multiplier": 1.0}
        | dict.fromkeys(_MULTIPLIERS, 1.0),
        fixed=SILU,
        weights=llama_weights,
        read=_read,
        write=_write,
    ),
    gguf=Gguf(
        "granite",
        keys={
            "embedding_multiplier": Key("embedding_scale", neutral=1.0),
            "residual_multiplier": Key("residual_scale", neutral=1.0),
            "logits_scaling": Key("logit_scale", neutral=1.0),
        },
        attention_scale="attention.scale",
        biases=("attention_bias", "mlp_bias"),
        permuted=True,
        llama3_scaling=True,
    ),
    presets=(
        published("granite3-2b", _PAPER, 40, 2048, (32, 8), 8192, **_2B),
        published("granite3-8b", _PAPER, 40, 4096, (32, 8), 12_800, **_8B),
    ),
)
