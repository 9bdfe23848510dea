"""The Studio's server returns correct data for charts and chats. tests/interop tests the pages of the Studio."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groundup.apps.catalog import Catalog
from groundup.apps.json_text import as_text
from groundup.core.artifact import begin
from groundup.core.errors import ConfigError
from groundup.inference import Engine
from groundup.model import Transformer
from groundup.serve import ServedModel
from groundup.studio import Workspace
from groundup.studio.routes import fit_context_window
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate

CONTEXT = 128


@pytest.fixture(params=["chat", "base"])
def served(
    request: pytest.FixtureRequest, tiny_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> Iterator[ServedModel]:
    template = ChatTemplate(tokenizer) if request.param == "chat" else None
    with Engine(tiny_model(tokenizer.vocab_size, context_length=CONTEXT), tokenizer) as engine:
        yield ServedModel("m", engine, template, 0)


def test_the_oldest_turns_give_way_at_the_end_of_the_context(served: ServedModel) -> None:
    """In an earlier release, every message after the end of the context was rejected with status 400."""
    turns = [("What is an import?", "A statement that binds names of modules.")] * 12
    window = fit_context_window(served, turns, "And a module?", max_tokens=200)
    assert 0 < window.dropped < len(turns)
    assert window.context_length == CONTEXT
    assert fit_context_window(served, turns[window.dropped :], "And a module?", max_tokens=200).dropped == 0
    assert fit_context_window(served, turns[:1], "And a module?", system="Be brief.", max_tokens=8).dropped == 0
    with pytest.raises(ConfigError, match="share the context"):
        fit_context_window(served, turns, "word " * CONTEXT)


def test_a_classifier_counts_texts(tmp_path: Path) -> None:
    """In an earlier release, the chart of a classifier had the unit tokens."""
    for name, stage in (("base", "pretrain"), ("chat", "finetune.instruct"), ("labels", "finetune.classify")):
        directory = tmp_path / "run" / name
        work = begin(directory, stage, {}, {})
        (directory / "metrics.jsonl").write_text(json.dumps({"step": 1, "tokens_seen": 32}) + "\n", encoding="utf-8")
        work.finish({}, [directory / "metrics.jsonl"])
    stages = Workspace(tmp_path, tmp_path).run("run").stages
    counted = {stage.stage: stage.unit for stage in stages}
    assert counted == {"pretrain": "tokens", "finetune.instruct": "trained tokens", "finetune.classify": "texts"}


def test_options_have_the_letters_that_answers_name() -> None:
    """In an earlier release, the options had the numbers 1 to 4, but the answer was the letter "B"."""
    app = Catalog()["mcq"].app
    value = {"questions": [{"question": "Who?", "options": ["a queen", "a drone"], "answer": "B"}]}
    lines = [line.strip() for line in as_text(value, app.output.lettered).splitlines()]
    assert lines[-4:] == ["Options:", "A. a queen", "B. a drone", "Answer: B"]
    assert "1. Question: Who?" in lines
    assert app.describe()["output"]["lettered"] == ["options"]
