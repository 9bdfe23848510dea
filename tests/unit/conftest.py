"""A small model with random weights: what it writes is nonsense, and the same nonsense each time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groundup.hub import save_model
from groundup.inference import Engine
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

CONTEXT = 512


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    # The vocabulary is that of a model whose matrix was padded to a round size.
    return tiny_model(tokenizer.vocab_size + 64, context_length=CONTEXT)


@pytest.fixture
def engine(model: Transformer, tokenizer: Tokenizer) -> Iterator[Engine]:
    with Engine(model, tokenizer) as engine:
        yield engine


@pytest.fixture(scope="session")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(tokenizer)


@pytest.fixture(scope="session")
def base_directory(model: Transformer, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as pretraining leaves one: no chat template."""
    directory = tmp_path_factory.mktemp("base")
    save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(directory)
    return directory


@pytest.fixture(scope="session")
def chat_directory(base_directory: Path, template: ChatTemplate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with the chat template in its tokenizer_config.json, as fine-tuning writes it."""
    directory = tmp_path_factory.mktemp("tuned") / "chat"
    shutil.copytree(base_directory, directory)
    config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = template.jinja
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def endless_directory(
    tiny_model: Callable[..., Transformer],
    tokenizer: Tokenizer,
    chat_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Greedy, this model goes round in circles for 30,000 tokens: its answers end when they are ended."""
    directory = shutil.copytree(chat_directory, tmp_path_factory.mktemp("tuned") / "endless")
    model = tiny_model(tokenizer.vocab_size, context_length=32_768)
    save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    return directory
