"""Conversations from tables without configured columns, with the column names of common datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.config import Config, load, setting
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import Example, Message
from groundup.data import (
    Conversations,
    ConversationSettings,
    ExampleSources,
    read_conversations,
    split_by_hash,
    without_prompts_of,
)


class Given(Config):
    data: ExampleSources = setting(help="examples")


def read(directory: Path, rows: list[Any], **settings: str) -> Conversations:
    path = directory / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_conversations(load(Given, {"data": str(path)}).data, ConversationSettings(**settings))


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if n % 2 else "user", content) for n, content in enumerate(contents))


def pair(row: dict[str, Any], directory: Path, **settings: str) -> tuple[str, ...]:
    (example,) = read(directory, [row], **settings).examples
    return tuple(message.content for message in example.messages)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p q", "response": "r s"}, ("p q", "r s")),
        ({"id": 7, "prompt": "p q", "completion": "r"}, ("p q", "r")),
        ({"Question": "p q?", "Answer": "r", "source": "some web page"}, ("p q?", "r")),
        ({"answer": "r", "question": "p q?"}, ("p q?", "r")),
        ({"user_question": "p q?", "bestAnswer": "r", "score": 3.5}, ("p q?", "r")),
        ({"question": "p q?", "answer": ["first one", "second one"]}, ("p q?", "first one")),
        ({"context": "A story.", "question": "p q?", "answers": {"text": ["r"], "at": [3]}}, ("A story.\np q?", "r")),
        ({"question": "p q?", "answer": True}, ("p q?", "true")),
        ({"instruction": "Do it.", "input": "", "output": "r"}, ("Do it.", "r")),
        ({"instruction": "Do it.", "input": "to this", "output": "r"}, ("Do it.\nto this", "r")),
        ({"fname": "d_1", "dialogue": "A: Hi.\nB: Yes?", "summary": "They meet.", "topic": "meeting"},
         ("A: Hi.\nB: Yes?", "They meet.")),
        ({"dialogue": [{"role": "Ann", "text": "Hi."}, {"role": "Bo", "text": "Yes?"}], "summary": "They meet."},
         ("Ann: Hi.\nBo: Yes?", "They meet.")),
        ({"turns": ["Hi.", "Yes?"], "summary": "They meet."}, ("Hi.\nYes?", "They meet.")),
        ({"dialog": '[{"speaker": "A", "content": "Hi."}]', "summary": "They meet."}, ("A: Hi.", "They meet.")),
        ({"question": "[1, 2] is which list?", "answer": "one"}, ("[1, 2] is which list?", "one")),
        ({"zz": "a reply in words", "yy": "What is it?"}, ("What is it?", "a reply in words")),
        ({"uid": "a91f", "yy": "some words", "zz": "then others", "url": "http://x"}, ("some words", "then others")),
    ],
)  # fmt: skip
def test_pairs_are_found_by_name_and_by_content(tmp_path: Path, row: dict[str, Any], expected: tuple[str, str]) -> None:
    assert pair(row, tmp_path) == expected


def test_numeric_columns_with_prompt_names_are_ignored(tmp_path: Path) -> None:
    """`question_id` contains the word but only numbers."""
    row = {
        "question_id": "4711",
        "question_type": "yesno",
        "question_text": "Is it so?",
        "answer_start": 3,
        "answer": "No",
    }
    assert pair(row, tmp_path) == ("Is it so?", "No")


def test_configured_templates_and_columns_are_used(tmp_path: Path) -> None:
    row = {"question": "p q?", "passage": "A story.", "answer": "r", "why": "because", "meta": {"lang": "en"}}
    assert pair(row, tmp_path, prompt="question", response="{answer}, {why}") == ("p q?", "r, because")
    assert pair(row, tmp_path, prompt="[{meta.lang}] {question}") == ("[en] p q?", "r")
    nested = {"task": "Do it.", "instances": [{"input": "to this", "output": "done"}, {"input": "x", "output": "y"}]}
    settings = {"prompt": "{task}\n{instances.0.input}", "response": "{instances.0.output}"}
    assert pair(nested, tmp_path, **settings) == ("Do it.\nto this", "done")


@pytest.mark.parametrize(
    "settings",
    [{"prompt": "qestion"}, {"response": "{anwser}"}, {"messages": "chats"}, {"system": "{sistem}"}],
)
def test_a_mistyped_column_is_rejected(tmp_path: Path, settings: dict[str, str]) -> None:
    """Empty prompts would train a model without an error."""
    with pytest.raises(ConfigError, match="no column"):
        read(tmp_path, [{"question": "p q?", "answer": "r", "messages": [], "system": "s"}], **settings)


def test_messages_and_prompt_cannot_be_combined(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set together"):
        read(tmp_path, [{"q": "x y", "m": []}], messages="m", prompt="q")


def test_undetected_columns_are_an_error_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'uno', 'due', 'tre'.*prompt =") as caught:
        read(tmp_path, [{"uno": "some words here", "due": "and more words", "tre": "still more words"}])
    assert "messages" in str(caught.value)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]},
        {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "r"}], "id": "x"},
        {"messages": '[{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]'},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]}, {"role": "model", "content": "r"}]},
        {"dialog": ["p", "r"]},
        {"log": [{"speaker": "Ann", "content": "p"}, {"speaker": "Bob", "content": "r"}]},
        {"chat_id": 7, "log": [{"speaker": "Ann", "utterance": "p"}, {"speaker": "Bob", "utterance": "r"}]},
        {"messages": [[{"text": "p", "sender": "1"}], [{"text": "r", "sender": "2"}]]},
        {"turns": [{"text": "p"}, {"text": "r"}]},
    ],
)
def test_conversation_formats(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read(tmp_path, [row]).examples == [Example(turns("p", "r"))]


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_invalid_conversations_are_repaired_or_dropped(tmp_path: Path) -> None:
    """Each reason is counted, so that users see why rows are dropped."""
    u, a, s = message("user", "u"), message("assistant", "a"), message("system", "s")
    found = read(
        tmp_path,
        [
            {"messages": [s, u, a]},
            {"messages": [u, a, u, a, u]},  # the last turn is not the assistant's
            {"messages": [u, u, a, a]},  # two consecutive turns of one role
            {"messages": [a, message("user", "v"), a]},  # starts with an answer
            {"messages": [u]},
            {"messages": []},
            {"messages": None},
            {"messages": [u, message("assistant", None)]},
            {"messages": [u, message("assistant", " ")]},
            {"messages": [u, message("tool", "42"), a]},
            {"messages": [u, a, s, u, a]},
            {"messages": [message("user", [{"type": "image_url"}]), a]},
            {"messages": [s, u, a]},
        ],
    )
    assert [example.messages for example in found.examples] == [
        (Message("system", "s"), *turns("u", "a")),
        turns("u", "a", "u", "a"),
        turns("u\nu", "a\na"),
        turns("v", "a"),
    ]
    assert found.dropped == {
        "no answer": 1,
        "no conversation": 2,
        "empty turn": 2,
        "unknown role": 1,
        "system message inside a conversation": 1,
        "content that is not text": 1,
        "duplicate": 1,
    }
    assert sorted(found.changed.values()) == [1, 1, 1]


def test_the_summary_is_one_sentence(tmp_path: Path) -> None:
    rows = [{"question": f"Is it {n}?", "answer": "" if n < 3 else "yes", "url": "x"} for n in range(12)]
    assert read(tmp_path, rows).sentence == "Read 12 rows as question -> answer; 3 rows dropped: empty response"


def test_a_system_message_from_a_column_or_as_text(tmp_path: Path) -> None:
    row = {"question": "p q?", "answer": "r", "persona": "You are a pirate."}
    assert pair(row, tmp_path, system="persona")[0] == "You are a pirate."
    assert pair(row, tmp_path, system="Answer in English.")[0] == "Answer in English."
    own = {"messages": [message("system", "own"), message("user", "u"), message("assistant", "a")]}
    (example,) = read(tmp_path, [own], system="Another.").examples
    assert example.messages[0].content == "own"


def test_an_error_explains_why_no_row_is_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 rows dropped: empty response"):
        read(tmp_path, [{"prompt": "p q", "response": " "}, {"prompt": "q r", "response": None}])


def test_each_source_has_its_own_columns_and_limit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ask,say\n" + "".join(f"ask {n},say {n}\n" for n in range(10)), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"messages": [{"role": "user", "content": "p"}]}\n' * 2, encoding="utf-8")
    sources = [
        {"kind": "folder", "path": str(tmp_path / "a.csv"), "prompt": "ask", "response": "{say}!", "limit": 4},
        {"kind": "folder", "path": str(tmp_path / "b.jsonl")},
    ]
    found = read_conversations(load(Given, {"data": sources}).data)
    assert [e.messages[1].content for e in found.examples] == ["say 0!", "say 2!", "say 5!", "say 7!"]
    assert (found.columns, found.dropped) == ("ask -> say, conversations in messages", {"no answer": 2})


def test_the_split_ignores_order_and_keeps_prompts_together() -> None:
    """A test answer whose question was trained on does not measure generalization."""
    examples = [Example(turns(f"question {n // 3}", f"answer {n}")) for n in range(900)]
    train, held_out = split_by_hash(examples)
    assert 60 <= len(held_out) <= 120
    assert len(train) + len(held_out) == 900
    asked = [{example.messages[0].content for example in part} for part in (train, held_out)]
    assert not asked[0] & asked[1]
    assert set(split_by_hash(examples[::-1])[1]) == set(held_out)
    assert len(split_by_hash(examples, max_held_out=20)[1]) in range(1, 24)


def test_a_common_greeting_does_not_move_all_chats_to_the_test_set() -> None:
    """Chats start equally, so they are grouped by everything before the last answer."""
    chats = [Example(turns("hi", "hello", f"question {n}", f"answer {n}")) for n in range(990)]
    train, held_out = split_by_hash([*chats, *(Example(turns("hello", f"hi {n}")) for n in range(10))])
    assert (len(train), len(held_out)) == (900, 100)
    same = [Example(turns("hi", f"answer {n}")) for n in range(400)]
    others = [Example(turns(f"question {n}", f"answer {n}")) for n in range(600)]
    assert [len(part) for part in split_by_hash([*same, *others])] == [900, 100]


@pytest.mark.parametrize("prompts", [["a", "b"], ["same", "same"], ["x"] * 9 + ["y"]])
def test_small_or_uniform_data_has_both_sets(prompts: list[str]) -> None:
    examples = [Example(turns(prompt, f"answer {n}")) for n, prompt in enumerate(prompts)]
    assert all(split_by_hash(examples))


def test_a_template_with_escaped_newline_and_a_mistyped_system_column(tmp_path: Path) -> None:
    row = {"question": "hello there", "context": "hi you", "reply": "yes", "system_prompt": "Be kind."}
    settings = {"prompt": "{question}\\n{context}", "response": "reply"}
    assert pair(row, tmp_path, **settings)[1:] == ("hello there\nhi you", "yes")  # after the system message
    with pytest.raises(ConfigError, match="Did you mean 'system_prompt'"):
        read(tmp_path, [row], system="sytem_prompt")


def test_a_source_is_limited_to_a_number_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"prompt": "p {n}", "response": "r"}}\n' for n in range(1000)), encoding="utf-8")
    source = {"kind": "folder", "path": str(path), "limit": 999}
    assert len(read_conversations(load(Given, {"data": [source]}).data).examples) == 999


def test_one_example_cannot_be_split() -> None:
    with pytest.raises(DataError, match="1 example:"):
        split_by_hash([Example(turns("a", "b"))])


def test_prompts_of_the_test_set_are_not_trained_on(tmp_path: Path) -> None:
    found = read(tmp_path, [{"prompt": f"p {n}", "response": f"r {n}"} for n in range(5)])
    learned = without_prompts_of([Example(turns("p 1", "another answer"))], found)
    assert [example.messages[0].content for example in learned] == ["p 0", "p 2", "p 3", "p 4"]
    assert found.dropped["prompt is in the test data"] == 1
    with pytest.raises(DataError, match="in the test data"):
        without_prompts_of(found.examples, found)


def test_hostile_rows_are_sanitized(tmp_path: Path) -> None:
    """A lone surrogate cannot be written as UTF-8, so the report would fail at the end of a long run."""
    deep: Any = "deep"
    for _ in range(300):
        deep = [deep]
    found = read(
        tmp_path,
        [
            {"question": "What is \ud800 this?", "answer": "a\udfff", "a{b": "braces {question}", "": "unnamed"},
            {"question": "And this?", "answer": deep},
            {"question": "And {answer}?", "answer": "{question}"},
        ],
    )
    assert [tuple(m.content for m in e.messages) for e in found.examples] == [
        ("What is \ufffd this?", "a\ufffd"),
        ("And {answer}?", "{question}"),  # cells are not templates
    ]
    assert found.dropped == {"empty response": 1}


def test_test_prompts_are_recognized_ignoring_case_and_white_space(tmp_path: Path) -> None:
    """Test rows often get into training tables through spreadsheets, which trim and capitalize."""
    rows = [{"prompt": p, "response": "yes"} for p in ("Is it  Green?\n", "IS IT GREEN?", "Is it red?", "Straße?")]
    found = read(tmp_path, rows)
    tested = [Example(turns(prompt, "no")) for prompt in ("is it green?", "STRASSE?")]
    assert [example.messages[0].content for example in without_prompts_of(tested, found)] == ["Is it red?"]
    assert found.dropped["prompt is in the test data"] == 3
    train, test = split_by_hash(found.examples, fraction=0.5)
    assert not {"".join(e.messages[0].content.casefold().split()) for e in train} & {
        "".join(e.messages[0].content.casefold().split()) for e in test
    }
