"""Models to hand to others: a small one of ours, and the one real foundation model that rides on a package index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.checkpoint import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def our_model(
    tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Random weights; its matrix has rows that no token has. Not narrower: of Q8_0 rows of one block (32 values)
    llama.cpp 0.3.36 on AMX made NaN, which the gate refused."""
    model = tiny_model(tokenizer.vocab_size + 64, context_length=512, dim=64, head_dim=16, ffn_dim=128)
    directory = tmp_path_factory.mktemp("ours")
    save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory
