"""What people give: checked against limits, put into prompts as it is."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.apps import Catalog, check_inputs
from groundup.apps.inputs import render_template
from groundup.core.errors import ConfigError

OURS = Catalog()


def test_defaults_and_texts_of_forms_become_values() -> None:
    """A form and a CSV file know text only."""
    assert check_inputs(OURS["summarize"].app, {"text": " A text.\n"}) == {"text": " A text.\n", "sentences": 3}
    assert check_inputs(OURS["summarize"].app, {"text": "x", "sentences": "7"})["sentences"] == 7
    labels = check_inputs(OURS["intent"].app, {"text": "x", "labels": "buy,  sell , buy,,"})["labels"]
    assert labels == ("buy", "sell")
    assert check_inputs(OURS["poem"].app, {"topic": "a\n lake", "mood": None}) == {"topic": "a lake", "mood": ""}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("poem", {}, "topic is missing"),
        ("poem", {"topic": "x" * 301}, "301 characters"),
        ("poem", {"topic": 5}, "it is text"),
        ("poem", {"topic": "x", "moood": "sad"}, "Did you mean mood?"),
        ("summarize", {"text": "x", "sentences": 0}, "from 1 to 20"),
        ("summarize", {"text": "x", "sentences": 2.5}, "whole number"),
        ("summarize", {"text": "x", "sentences": True}, "whole number"),
        ("rewrite", {"text": "x", "style": "simple"}, "Did you mean simpler?"),
        ("intent", {"text": "x", "labels": [1, 2]}, "texts"),
        ("intent", {"text": "x", "labels": "a"}, "1 labels"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_inputs(OURS[name].app, given)
    assert said in str(refused.value)


def test_a_value_is_put_in_as_it_is() -> None:
    """A text with braces or backslashes in it must neither take in other inputs nor break the template."""
    template = "Tone: {tone}\nText: {text}\nEnd {tone}."
    given = {"text": "{tone} \\1 {missing} %s", "tone": "dry"}
    assert render_template(template, given) == "Tone: dry\nText: {tone} \\1 {missing} %s\nEnd dry."


def test_a_line_without_any_of_its_inputs_is_left_out() -> None:
    template = "Poem\nMood: {mood}\nFrom {a} to {b}\n\nGo"
    assert render_template(template, {"mood": "", "a": "", "b": "x"}) == "Poem\nFrom  to x\n\nGo"
    assert render_template(template, {"mood": "sad", "a": "", "b": ""}) == "Poem\nMood: sad\n\nGo"
