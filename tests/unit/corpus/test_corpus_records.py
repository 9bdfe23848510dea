"""The text of records, described by the recipe or detected."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.corpus.records import RecordOptions, fill_record_template, outline, record_texts, resolve, split_records


def _texts(value: Any, options: RecordOptions | None = None) -> list[str]:
    options = options or RecordOptions()
    return [text for text, *_ in record_texts(split_records(value, options.records), options)]


def test_paths() -> None:
    value = {"a": {"b": [1, {"c": 2}]}, "x.y": "dotted"}
    assert resolve(value, "a.b.0") == [1]
    assert resolve(value, "a.b.*.c") == [2]
    assert resolve(value, "x.y") == ["dotted"]  # a CSV column may have this name
    assert resolve(value, "a.z.b") == []


def test_template() -> None:
    record = {"title": "Whales", "n": 3, "p": ["one", "two"]}
    assert fill_record_template("{title} ({n})\n\n{p.*}", record) == "Whales (3)\n\none\ntwo"
    assert (
        fill_record_template("{nowhere}: {nothing}", record) == ""
    )  # a misspelled field must not produce documents of ": "
    assert fill_record_template("{What: really!}", {"What: really!": "a column"}) == "a column"


def test_conversation_nested_in_turns() -> None:
    data = {
        "id1": {
            "messages": [
                [{"text": "Hi", "by": 1}, {"text": "You there?", "by": 1}],
                [{"text": "Yes", "by": 2}],
            ]
        },
        "id2": {"messages": []},
    }
    options = RecordOptions(records="*", each="messages.*", text="- {*.text}")
    assert _texts(data, options) == ["- Hi\nYou there?\n- Yes", ""]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["one", "two"], ["one", "two"]),
        ([{"id": "17", "text": "t", "url": "https://example.org/long/long"}], ["t"]),
        (
            [{"ID": "17", "Passage": "the passage", "question": "a much longer question than the passage?"}],
            ["the passage"],
        ),
        ([{"k": "x", "review": "a long review of a film"}], ["a long review of a film"]),
        ({"version": "1", "data": [{"body": "a"}, {"body": "b"}]}, ["a", "b"]),
        ({"u1": {"content": "a"}, "u2": {"content": "b"}}, ["a", "b"]),
        (
            [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}],
            ["Hi\nHello"],
        ),
        ([{"dialog": [["a first turn"], ["a second"]]}], ["a first turn\na second"]),
        ([{"n": 1}, {"n": 2}], ["", ""]),
        ([{"te{x}t": "braces in a name"}], ["braces in a name"]),
        ([{"a.b": "a dot in a name"}], ["a dot in a name"]),
        ([{"title": "t", "sentences": ["one, and a bit", "two, and more"]}], ["one, and a bit\ntwo, and more"]),
        ([{"headline": "a headline", "n": {"html": "<b>"}}], ["a headline"]),
        ([[{"from": "a", "said": "Hello, you."}, {"from": "b", "said": "Hi."}]], ["Hello, you.\nHi."]),
        ({f"id{n}": f"text {n}" for n in range(30)}, [f"text {n}" for n in range(30)]),
        ({"name": "one", "summary": "a record of few strings"}, ["a record of few strings"]),
        ([], []),
        (None, [""]),
    ],
)
def test_text_is_detected(value: Any, expected: list[str]) -> None:
    assert _texts(value) == expected


def test_text_in_nested_lists() -> None:
    """In SQuAD, the title, which is the only top-level string, was taken for the text."""
    passages = [f"Passage {n} is much longer than any of the questions that people ask about it." for n in range(4)]
    asked = [{"question": "What?", "id": "1", "answers": [{"text": "longer", "answer_start": 9}]}]
    paragraphs = [{"context": passage, "qas": asked * 3} for passage in passages]
    value = {"version": "1.1", "data": [{"title": f"T{n}", "paragraphs": paragraphs[n : n + 2]} for n in (0, 2)]}
    found = list(record_texts(split_records(value, None), RecordOptions()))
    assert [text for text, *_ in found] == ["\n".join(passages[:2]), "\n".join(passages[2:])]
    assert {path for *_, path in found} == {"paragraphs.*.context"}
    template = RecordOptions(text="{paragraphs.*.context}")  # the path in the data card is valid in a recipe
    assert _texts(value, RecordOptions(records="data.*", text=template.text)) == [text for text, *_ in found]


def test_messages_with_tool_calls() -> None:
    """The least nested known name is the text of the turn."""
    call = [{"function": {"text": "f(x), and a long argument that is longer than the turn"}}]
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "tool_calls": call}]
    assert _texts([{"messages": turns}]) == ["Hi\nHello"]


def test_outline_has_all_fields() -> None:
    """A long first field must not hide the other names, which help to correct a misspelled one."""
    shown = outline({"passage": "x" * 5000, "question": "why"})
    assert "passage = " in shown
    assert 'question = "why"' in shown
