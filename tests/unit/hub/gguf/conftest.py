"""Small models of every family, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from groundup.model import ModelConfig, Transformer

_LLAMA = ModelConfig(
    family="llama",
    dim=64,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    ffn_dim=96,
    vocab_size=80,
    context_length=64,
    tie_embeddings=False,
)
_CONFIGS: dict[str, ModelConfig] = {
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, family="mistral", sliding_window=8),
    "qwen2": replace(_LLAMA, family="qwen2", sliding_window=8, sliding_layers=(False, True), tie_embeddings=True),
    "qwen3": replace(_LLAMA, family="qwen3", head_dim=32, tie_embeddings=True),
    "gemma3": replace(
        _LLAMA,
        family="gemma3",
        tie_embeddings=True,
        sliding_window=8,
        sliding_layers=(True, False),
        rope_theta=1e6,
        local_rope_theta=1e4,
    ),
    "gpt2": replace(_LLAMA, family="gpt2", n_kv_heads=4, tie_embeddings=True),
    "gpt_neox": replace(_LLAMA, family="gpt_neox", n_kv_heads=4, rotary_fraction=0.25),
    "olmo2": replace(_LLAMA, family="olmo2"),
    "gemma2": replace(
        _LLAMA,
        family="gemma2",
        tie_embeddings=True,
        sliding_window=8,
        sliding_layers=(True, False),
        attention_softcap=50.0,
        logit_softcap=30.0,
    ),
    "phi3": replace(_LLAMA, family="phi3", sliding_window=8, rotary_fraction=0.75),
    "granite": replace(
        _LLAMA,
        family="granite",
        tie_embeddings=True,
        attention_bias=True,
        query_scalar=4096.0,
        embedding_multiplier=12.0,
        residual_multiplier=0.22,
        logits_scaling=8.0,
    ),
    "smollm3": replace(
        _LLAMA, family="smollm3", n_layers=5, tie_embeddings=True, rotary_layers=(True, True, True, False, True)
    ),
}


@pytest.fixture
def configs() -> dict[str, ModelConfig]:
    """One model per family, with the options that only this family has."""
    return _CONFIGS


@pytest.fixture
def random_state() -> Callable[[ModelConfig], dict[str, torch.Tensor]]:
    def make(config: ModelConfig) -> dict[str, torch.Tensor]:
        random = torch.Generator().manual_seed(7)
        with torch.device("meta"):
            shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}
        state = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
        if config.tie_embeddings:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        return state

    return make
