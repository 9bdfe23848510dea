"""A small model with its tokenizer, and lines of real text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from groundup.evaluation.prompt_search import PromptedModel
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    return tiny_model(tokenizer.vocab_size, context_length=256)


@pytest.fixture(scope="module")
def prompted(model: Transformer, tokenizer: Tokenizer) -> PromptedModel:
    template = ChatTemplate(tokenizer)
    return PromptedModel(model, tokenizer, template, template.stop_ids)


@pytest.fixture(scope="module")
def texts(real_documents: list[str]) -> list[str]:
    lines = [" ".join(line.split()[:9]) for text in real_documents for line in text.split("\n\n")]
    return list(dict.fromkeys(line for line in lines if len(line.split()) == 9))[:60]
