"""Questions about long texts get a short passage that contains their answer, or options from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.config import Config, load, setting
from groundup.core.errors import ConfigError, DataError
from groundup.data import ConversationSettings, ExampleSources, read_conversations
from groundup.data.conversations.passage_questions import PassageSettings, with_passages
from groundup.data.spans import NUM_OPTIONS, common_type, occurs_in
from groundup.data.tables import Table

HARBOR = "The harbor of Lindau was built in 1811. It was planned by Otto Kranz, and was paid for by Ida Brenner."
LIGHT = "The lighthouse is 33 metres high. It was lit by Karl Weber, and later by Emma Lang and by Paul Stein."
TEXT = f"{HARBOR} {LIGHT}"
ROWS: list[dict[str, Any]] = [
    {"passage": TEXT, "question": "Who planned the harbor?", "answer": ["Mr. K.", "otto kranz."]},
    {"passage": TEXT, "question": "How high is the lighthouse?", "answer": "33 metres"},
    {"passage": TEXT, "question": "Who paid for the harbor?", "answer": "Ida Brenner"},
    {"passage": TEXT, "question": "What color is the lighthouse?", "answer": "red"},
    {"passage": TEXT, "question": "Why was the harbor built there?", "answer": "because of a long history of storms"},
]
SMALL = {"max_characters": 110}


class Given(Config):
    data: ExampleSources = setting(help="examples")


def table(rows: list[dict[str, Any]] = ROWS) -> Table:
    return Table("t.jsonl", ("passage", "question", "answer"), rows)


def test_a_question_gets_the_passage_with_its_answer() -> None:
    """A small model that reads a whole story has few tokens for many examples, and may answer from memory."""
    made = with_passages(table(), PassageSettings(**SMALL))
    assert [(row["passage"], row["answer"]) for row in made.rows] == [
        (HARBOR, "Otto Kranz"),  # in the upper case of the passage, so that it can be copied
        (LIGHT, "33 metres"),
        (HARBOR, "Ida Brenner"),
    ], "answers that no passage contains, and long answers, are left out"


def test_unanswerable_questions_get_another_passage_of_the_same_text() -> None:
    """A passage about another topic is easy to refuse."""
    rows = [{**ROWS[1], "question": f"How high is the lighthouse of harbor {number}?"} for number in range(200)]
    made = with_passages(table(rows), PassageSettings(**SMALL, unanswerable=0.25))
    refused = [row for row in made.rows if row["answer"] == "unknown"]
    assert {row["passage"] for row in refused} == {HARBOR}
    assert 30 <= len(refused) <= 70


def test_options_are_four_spans_of_one_type() -> None:
    made = with_passages(table(ROWS[:3]), PassageSettings(options=2))
    (row,) = made.rows
    questions = json.loads(row["questions"])
    assert row["count"] == "2" and len(questions) == 2, "a text with one number has no options for it"
    for made_question, answer in zip(questions, ("Otto Kranz", "Ida Brenner"), strict=True):
        assert list(made_question) == ["answer", "question", "wrong"], "the question follows its answer"
        options = [made_question["answer"], *made_question["wrong"]]
        assert len(set(options)) == NUM_OPTIONS and all(occurs_in(option, TEXT) for option in options)
        assert common_type(options, TEXT) == "name"
        assert made_question["answer"] == answer


def test_a_source_of_examples_has_passages(tmp_path: Path) -> None:
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    source = {"kind": "folder", "path": str(path), "passages": SMALL}
    settings = ConversationSettings(prompt="{passage}\n{question}", response="{answer}")
    first, *_ = read_conversations(load(Given, {"data": [source]}).data, settings).examples
    assert [message.content for message in first.messages] == [
        f"{HARBOR}\nWho planned the harbor?",
        "Otto Kranz",
    ]


def test_a_wrong_column_and_texts_without_answers_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"passages.text = 'pasage': t.jsonl has no column.*Did you mean 'passage'"):
        with_passages(table(), PassageSettings(text="pasage"))
    with pytest.raises(DataError, match="no question has an answer of at most 6 words that occurs in its text"):
        with_passages(table(ROWS[3:]), PassageSettings())
