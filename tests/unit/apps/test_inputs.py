"""Inputs are validated and inserted into prompt templates."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.apps import Catalog, check_inputs
from groundup.apps.inputs import render_template
from groundup.core.errors import ConfigError

BUNDLED = Catalog()


def test_defaults_and_texts_of_forms_become_values() -> None:
    """HTML forms and CSV files contain only text, so numbers and labels must be parsed."""
    assert check_inputs(BUNDLED["summarize"].app, {"text": " A text.\n"}) == {"text": " A text.\n", "sentences": 3}
    assert check_inputs(BUNDLED["summarize"].app, {"text": "x", "sentences": "7"})["sentences"] == 7
    labels = check_inputs(BUNDLED["intent"].app, {"text": "x", "labels": "buy,  sell , buy,,"})["labels"]
    assert labels == ("buy", "sell")
    assert check_inputs(BUNDLED["poem"].app, {"topic": "a\n lake", "mood": None}) == {"topic": "a lake", "mood": ""}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("poem", {}, "topic is missing"),
        ("poem", {"topic": "x" * 301}, "301 characters"),
        ("poem", {"topic": 5}, "must be text"),
        ("poem", {"topic": "x", "moood": "sad"}, "did you mean 'mood'?"),
        ("summarize", {"text": "x", "sentences": 0}, "from 1 to 20"),
        ("summarize", {"text": "x", "sentences": 2.5}, "whole number"),
        ("summarize", {"text": "x", "sentences": True}, "whole number"),
        ("rewrite", {"text": "x", "style": "simple"}, "Did you mean simpler?"),
        ("intent", {"text": "x", "labels": [1, 2]}, "must be text"),
        ("intent", {"text": "x", "labels": "a"}, "has 1 label"),
    ],
)
def test_invalid_inputs_are_errors(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_inputs(BUNDLED[name].app, given)
    assert said in str(refused.value)


def test_a_value_is_rendered_unchanged() -> None:
    """Braces and backslashes in a value have no special meaning."""
    template = "Tone: {tone}\nText: {text}\nEnd {tone}."
    given = {"text": "{tone} \\1 {missing} %s", "tone": "dry"}
    assert render_template(template, given) == "Tone: dry\nText: {tone} \\1 {missing} %s\nEnd dry."


def test_a_line_with_only_empty_inputs_is_omitted() -> None:
    template = "Poem\nMood: {mood}\nFrom {a} to {b}\n\nGo"
    assert render_template(template, {"mood": "", "a": "", "b": "x"}) == "Poem\nFrom  to x\n\nGo"
    assert render_template(template, {"mood": "sad", "a": "", "b": ""}) == "Poem\nMood: sad\n\nGo"
