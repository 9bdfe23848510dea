"""A small model with random weights: what it writes is nonsense, and the same nonsense each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from groundup.generate import Engine
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

CONTEXT = 512


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    # The vocabulary is that of a model whose matrix was padded to a round size.
    return tiny_model(tokenizer.vocab_size + 64, context_length=CONTEXT)


@pytest.fixture
def engine(model: Transformer, tokenizer: Tokenizer) -> Iterator[Engine]:
    with Engine(model, tokenizer) as engine:
        yield engine
