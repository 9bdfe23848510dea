"""What the tests of tuning begin with: a run as far as its base model, and real paragraphs of three kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.artifact import begin
from groundup.checkpoint import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def run_directory(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> Path:
    """A run that has come as far as its base model, whose weights are random."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    work = begin(directory / "base", "pretrain", {}, {})
    files = save_model(directory / "base", tiny_model(tokenizer.vocab_size), bos_id=0, eos_id=0)
    tokenizer.save(directory / "base")
    work.finish({}, files)
    return directory


@pytest.fixture(scope="module")
def paragraphs(real_documents: list[str]) -> list[tuple[str, str]]:
    """(paragraph, document): the three longest documents, which are about different things."""
    longest = sorted(real_documents, key=len)[-3:]
    found = [(p.strip(), text.split("\n")[0].strip()) for text in longest for p in text.split("\n\n") if len(p) > 60]
    return list(dict(found).items())
