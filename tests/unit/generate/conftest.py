"""A small model with random weights: what it writes is nonsense, and the same nonsense each time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from groundup.generate import Engine
from groundup.model import ModelConfig, Transformer
from groundup.tokenizer import Tokenizer

CONTEXT = 512


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        family="qwen3",
        dim=32,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        head_dim=8,
        ffn_dim=64,
        vocab_size=tokenizer.vocab_size + 64,  # as a model whose matrix was padded to a round size
        context_length=CONTEXT,
        tie_embeddings=False,
    )
    return Transformer(config).eval().requires_grad_(False)


@pytest.fixture
def engine(model: Transformer, tokenizer: Tokenizer) -> Iterator[Engine]:
    with Engine(model, tokenizer) as engine:
        yield engine
