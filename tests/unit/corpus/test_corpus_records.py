"""Text out of records: described by the recipe, or found."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.corpus.records import RecordRules, fill, resolve, split_records, texts


def _texts(value: Any, rules: RecordRules | None = None) -> list[str]:
    rules = rules or RecordRules()
    return [text for text, _ in texts(split_records(value, rules.records), rules)]


def test_paths() -> None:
    value = {"a": {"b": [1, {"c": 2}]}, "x.y": "dotted"}
    assert resolve(value, "a.b.0") == [1]
    assert resolve(value, "a.b.*.c") == [2]
    assert resolve(value, "x.y") == ["dotted"]  # a CSV column may be called so
    assert resolve(value, "a.z.b") == []


def test_template() -> None:
    record = {"title": "Whales", "n": 3, "p": ["one", "two"]}
    assert fill("{title} ({n})\n\n{p.*}", record) == "Whales (3)\n\none\ntwo"
    assert fill("{nowhere}: {nothing}", record) == ""  # a typing mistake must not make documents of ": "
    assert fill("{What: really!}", {"What: really!": "a column"}) == "a column"


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
    rules = RecordRules(records="*", each="messages.*", text="- {*.text}")
    assert _texts(data, rules) == ["- Hi\nYou there?\n- Yes", ""]


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
        ([], []),
        (None, [""]),
    ],
)
def test_undescribed_text_is_found(value: Any, expected: list[str]) -> None:
    assert _texts(value) == expected
