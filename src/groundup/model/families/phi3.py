"""Phi-3 (Abdin et al. 2024, arXiv:2404.14219). The variants with 128k context ("longrope") are not supported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.model.families.base import (
    ALL_LAYERS,
    DEFAULTS,
    KEYS,
    LAYER,
    QKV,
    SILU,
    Family,
    Gguf,
    HuggingFace,
    architectures,
    heads_fill_dim,
    published,
    split_heads,
)
from groundup.model.weight_map import EMBEDDING, Split, Weight, same

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig


def _weights(config: ModelConfig) -> tuple[Weight, ...]:
    gate_up = tuple(f"{LAYER}mlp.{part}_proj.weight" for part in ("gate", "up"))
    parts = ("input_layernorm", "self_attn.o_proj", "post_attention_layernorm", "mlp.down_proj")
    return (
        *same(EMBEDDING, "model.norm.weight", *(f"{LAYER}{part}.weight" for part in parts)),
        Weight(f"{LAYER}self_attn.qkv_proj.weight", tuple(f"{name}.weight" for name in QKV), (split_heads(config),)),
        Weight(f"{LAYER}mlp.gate_up_proj.weight", gate_up, (Split((config.ffn_dim,) * 2),)),
    )


_PAPER = "Abdin et al. 2024, arXiv:2404.14219"
_PHI3: dict[str, Any] = {
    "vocab_size": 32_064,
    "context_length": 4096,
    "norm_eps": 1e-5,
    "tie_embeddings": False,
    "sliding_window": 2047,
}

PHI3 = Family(
    name="phi3",
    title="Phi-3",
    about="llama with sliding windows and fused projections in the file",
    optional=("sliding_window", "rotary_fraction"),
    huggingface=HuggingFace(
        model_type="phi3",
        architectures=architectures("Phi3"),
        keys=KEYS,
        defaults=DEFAULTS
        | {"vocab_size": 32_064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "sliding_window": None}
        | {"partial_rotary_factor": 1.0},
        fixed=SILU,
        weights=_weights,
        dropouts=("attention_dropout", "embd_pdrop", "resid_pdrop"),
        rotary_fraction="partial_rotary_factor",
        windows=ALL_LAYERS,
    ),
    gguf=Gguf("phi3", fused_qkv=True, fused_gate_up=True, unsupported=heads_fill_dim),
    presets=(
        published("phi3-mini-4k", _PAPER, 32, 3072, (32, 32), 8192, **_PHI3),
        published("phi3-medium-4k", _PAPER, 40, 5120, (40, 10), 17_920, **_PHI3),
    ),
)
