"""Multiple-choice questions in the formats of common datasets; unusable rows are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import ConfigError, DataError
from groundup.data.choices import Choice, read_choices
from groundup.data.tables import read_table

ARC = {"question": "What melts?", "choices": {"text": ["ice", "iron"], "label": ["A", "B"]}, "answerKey": "A"}


def rows(folder: Path, *records: dict[str, Any], name: str = "q.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("record", "prompt", "answer"),
    [
        (ARC, "Question: What melts?\nAnswer:", 0),
        ({"query": "2+2", "options": ["3", "5", "4"], "gold": 2}, "Question: 2+2\nAnswer:", 2),
        (
            {"question": "2+2", "choices": ["3", "4"], "answer": "4"},
            "Question: 2+2\nAnswer:",
            1,
        ),  # the text of the answer, not its index
        ({"question": "2+2", "choices": ["x", "y"], "answer": "b"}, "Question: 2+2\nAnswer:", 1),
        ({"ctx": "He sat", "endings": [" down.", " up."], "label": "1"}, "Question: He sat\nAnswer:", 1),
        ({"choices": ["The cat sits.", "The cat sit."], "answer": 0}, "", 0),
    ],
)
def test_formats_of_known_datasets(record: dict[str, Any], prompt: str, answer: int, tmp_path: Path) -> None:
    (item,) = read_choices(read_table(rows(tmp_path, record))).items
    assert (item.prompt, item.answer) == (prompt, answer)
    assert len(item.choices) >= 2


def test_a_csv_file_contains_choices_as_json(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('question,choices,answer\nWhy?,"[""so"", ""thus ""]",B\n', encoding="utf-8")
    assert read_choices(read_table(path)).items == [Choice("Question: Why?\nAnswer:", ("so", "thus "), 1)]


def test_the_prompt_follows_a_template(tmp_path: Path) -> None:
    table = read_table(rows(tmp_path, {"question": "Why?", "passage": "Text ", "choices": ["a", "b"], "answer": 0}))
    (item,) = read_choices(table, "{passage}\nQ: {question}\nA:").items
    assert item.prompt == "Text \nQ: Why?\nA:"
    with pytest.raises(ConfigError, match="no column 'pasage'"):
        read_choices(table, "{pasage}")


def test_unusable_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    good = {"question": "Why?", "choices": ["a", "b"], "answer": 0}
    bad = [good | {"answer": 2}, good | {"answer": "c"}, good | {"answer": None}, good | {"question": " "}]
    found = read_choices(read_table(rows(tmp_path, good, *bad, good | {"choices": ["a", " "]})))
    assert len(found.items) == 1
    assert found.dropped == {"answer that is not a choice": 3, "empty question": 1, "fewer than two choices": 1}
    with pytest.raises(DataError, match="none of"):
        read_choices(read_table(rows(tmp_path, good | {"answer": 7})))
    with pytest.raises(DataError, match="list of choices"):
        read_choices(read_table(rows(tmp_path, {"question": "Why?", "answer": "so"})))


def test_minimal_pairs_of_blimp_are_questions_without_a_prompt(tmp_path: Path) -> None:
    pairs = [
        {"sentence_good": "She sees herself.", "sentence_bad": "She sees himself.", "UID": "anaphor", "pairID": "0"},
        {"sentence_good": "They have run.", "sentence_bad": "They have ran.", "UID": "participle", "pairID": "1"},
        {"sentence_good": "They have run.", "sentence_bad": "", "UID": "participle", "pairID": "2"},
    ]
    found = read_choices(read_table(rows(tmp_path, *pairs)))
    assert found.items == [
        Choice("", ("She sees herself.", "She sees himself."), 0),
        Choice("", ("They have run.", "They have ran."), 0),
    ]
    assert found.groups == {"UID": ["anaphor", "participle"]}
    assert found.dropped == {"empty sentence": 1}


def test_groups_are_columns_of_the_table(tmp_path: Path) -> None:
    table = read_table(rows(tmp_path, *({"choices": ["a", "b"], "answer": 0, "level": level} for level in "xyx")))
    assert read_choices(table).groups == {}
    assert read_choices(table, groups=["level"]).groups == {"level": ["x", "y", "x"]}
    with pytest.raises(ConfigError, match="levels"):
        read_choices(table, groups=["levels"])
