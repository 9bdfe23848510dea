"""Decontamination finds evaluation items regardless of case and punctuation, and ignores common phrases."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.core.types import Document
from groundup.corpus.decontaminate import (
    Decontaminate,
    DecontaminationSettings,
    build_index,
    contamination,
)
from groundup.corpus.evaluation_index import EvaluationIndex
from groundup.corpus.steps import Drop

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips "
    "did Natalia sell altogether in April and May?"
)
PASSAGE = (
    "The Normans were the people who in the 10th and 11th centuries gave their name to Normandy, a region in France. "
    "They were descended from Norse raiders and pirates from Denmark, Iceland and Norway who, under their leader "
    "Rollo, agreed to swear fealty to King Charles III of West Francia."
)
PROSE = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, "
    "and dedicated to the proposition that all men are created equal. Now we are engaged in a great civil war, "
    "testing whether that nation, or any nation so conceived and so dedicated, can long endure."
)


def _index(tmp_path: Path, records: list[object], **settings: object) -> EvaluationIndex:
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return build_index(DecontaminationSettings(files=[path], **settings))  # type: ignore[arg-type]


def _items(index: EvaluationIndex, text: str, min_overlap: float = 0.1) -> list[str]:
    return [hit.item for hit in index.hits(text, min_overlap)]


@pytest.mark.parametrize(
    "disguised",
    [
        QUESTION,
        QUESTION.upper(),
        QUESTION.replace(" ", "\n\n"),
        QUESTION.replace(",", " —").replace("?", "").replace("48", "*48*"),
        QUESTION[60:],
        "Ｎatalia sold clips to ４８ of her friends in April, and then she sold half",
    ],
)
def test_an_item_is_found_in_a_document(tmp_path: Path, disguised: str) -> None:
    index = _index(tmp_path, [{"id": "gsm-1", "question": QUESTION, "answer": "72"}, {"question": "Why?"}])
    assert _items(index, PROSE) == []
    assert _items(index, f"{PROSE} {disguised} {PROSE}") == ["eval.jsonl#1"]


def test_fewer_words_than_an_ngram_do_not_match(tmp_path: Path) -> None:
    index = _index(tmp_path, [{"question": QUESTION}])
    words = QUESTION.split()
    assert _items(index, f"{PROSE} {' '.join(words[3:15])} {PROSE}") == []
    assert _items(index, f"{PROSE} {' '.join(words[3:16])} {PROSE}") == ["eval.jsonl#1"]


def test_one_phrase_of_a_long_text_does_not_match(tmp_path: Path) -> None:
    """An article with 13 words of a license must not drop every document with that license."""
    licence = "permission is hereby granted free of charge to any person obtaining a copy of this software"
    article = " ".join(f"word{number}" for number in range(1000))
    index = _index(tmp_path, [{"text": f"{article} {licence}"}])
    assert _items(index, f"{PROSE} {licence}") == []
    assert _items(index, f"{PROSE} {licence}", min_overlap=0.0) == ["eval.jsonl#1"]
    assert _items(index, f"{PROSE} {' '.join(article.split()[100:126])}") == ["eval.jsonl#1"]


def test_short_texts_match_as_a_whole(tmp_path: Path) -> None:
    """All of 8 to 12 words must match. Fewer words are too common and match only a whole document."""
    index = _index(tmp_path, [{"q": "Who wrote the opera about a barber in Seville?"}, {"q": "Who was Rossini?"}])
    assert _items(index, f"{PROSE} who wrote the opera about a barber in seville {PROSE}") == ["eval.jsonl#1"]
    assert _items(index, f"{PROSE} who wrote the opera about a barber {PROSE}") == []
    assert _items(index, f"{PROSE} who was Rossini {PROSE}") == []
    assert _items(index, "Who was Rossini?") == ["eval.jsonl#2"]


def test_templates_do_not_match(tmp_path: Path) -> None:
    template = "Read the following sentence and then tell whether what it says is true or false, please: "
    facts = [
        f"the number {number} is the number that comes after number {number - 1} in our counting"
        for number in range(40)
    ]
    index = _index(tmp_path, [{"instruction": template, "prompt": template + fact} for fact in facts])
    assert _items(index, f"{PROSE} {template} {PROSE}") == []
    assert "eval.jsonl#8" in _items(index, f"{PROSE} {facts[7]}", 0.0)


def test_a_passage_of_several_questions_is_not_a_template(tmp_path: Path) -> None:
    """SQuAD has up to ten questions per passage."""
    records = [{"passage": PASSAGE, "question": f"What is asked in question number {number}?"} for number in range(9)]
    index = _index(tmp_path, records)
    assert len(_items(index, f"{PROSE} {PASSAGE}")) == 9


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("eval.csv", f'question,answer\n"{QUESTION}",72\n"{PASSAGE}",x\n'),
        ("eval.json", json.dumps({"data": [{"nested": {"list": [{"q": QUESTION}]}}, {"q": PASSAGE}]})),
        ("eval.txt", f"{QUESTION}\n{PASSAGE}\n"),
        ("eval.md", f"{QUESTION[:60]}\n{QUESTION[60:]}\n\n{PASSAGE}\n"),
    ],
)
def test_formats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    index = build_index(DecontaminationSettings(files=[tmp_path / name]))
    assert _items(index, f"{PROSE} {QUESTION}") == [f"{name}#1"]
    assert _items(index, f"{PASSAGE} {PROSE}") == [f"{name}#2"]


def test_scripts_without_spaces(tmp_path: Path) -> None:
    chinese = "問題：如果一個人每天走五公里，那麼他在一個星期裡一共走了多少公里？"
    index = _index(tmp_path, [{"q": chinese}])
    assert _items(index, f"這裡有一些別的文字。{chinese}還有更多文字。") == ["eval.jsonl#1"]


def test_step_in_another_process_and_report(tmp_path: Path) -> None:
    """Hashes of words must be equal in all processes, unlike Python's hashes of strings."""
    index = _index(tmp_path, [{"q": QUESTION}, {"q": PASSAGE}, {"q": "Never?"}])
    index.save(tmp_path / "index.npz")
    step = Decontaminate(tmp_path / "index.npz")
    assert len(pickle.dumps(step)) < 1000
    code = (
        "import pickle, sys; from groundup.core.types import Document\n"
        "step, text = pickle.load(sys.stdin.buffer)\n"
        "print(step(Document(text=text, source='s', origin='o')).detail)"
    )
    text = f"{QUESTION} {PASSAGE[:130]}"
    told = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((step, text)), capture_output=True, check=True
    )
    outcome = step(Document(text=text, source="s", origin="o"))
    assert isinstance(outcome, Drop)
    assert outcome.reason == "evaluation item"
    assert told.stdout.decode().strip() == outcome.detail
    other = step(Document(text=PASSAGE, source="s", origin="o"))
    assert isinstance(other, Drop)
    assert other.detail == "eval.jsonl#2 (100 %)"
    report = contamination(index, [("web#7", outcome.detail), ("web#1", other.detail)])
    assert report["documents"] == 2
    assert report["files"] == {"eval.jsonl": {"items": 3, "found": 2}}
    assert report["items_too_short"] == 1
    assert report["found"] == [
        {"item": "eval.jsonl#2", "documents": 2, "samples": ["web#1", "web#7"]},
        {"item": "eval.jsonl#1", "documents": 1, "samples": ["web#7"]},
    ]


def test_built_in_items_are_found(tmp_path: Path) -> None:
    index = build_index(DecontaminationSettings(), [("arithmetic#1", [QUESTION])])
    assert _items(index, QUESTION + PROSE) == ["arithmetic#1"]
    nothing = build_index(DecontaminationSettings())
    nothing.save(tmp_path / "empty.npz")
    assert EvaluationIndex.load(tmp_path / "empty.npz").hits(PROSE, 0.1) == []


def test_unreadable_items_are_an_error(tmp_path: Path) -> None:
    """A damaged line that is skipped silently would stay in the corpus."""
    with pytest.raises(DataError, match="no such file"):
        build_index(DecontaminationSettings(files=[tmp_path / "none.jsonl"]))
    (tmp_path / "bad.jsonl").write_text(json.dumps({"q": QUESTION}) + "\n{broken\n")
    with pytest.raises(DataError, match="not JSON"):
        build_index(DecontaminationSettings(files=[tmp_path / "bad.jsonl"]))
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="no text"):
        build_index(DecontaminationSettings(files=[tmp_path / "empty.txt"]))


@pytest.mark.parametrize("text", ["", "\ud800", "...", "a", "\0" * 20])
def test_nothing_raises(tmp_path: Path, text: str) -> None:
    assert _items(_index(tmp_path, [{"q": QUESTION}]), text) == []


def test_adversarial_documents_are_fast(tmp_path: Path) -> None:
    """A repeated 13-gram is looked up once."""
    index = _index(tmp_path, [{"q": "the " * 5_000}, {"q": "a " * 2_000}])
    begun = time.process_time()
    index.hits("the " * 100_000, 0.1)
    index.hits("a the " * 100_000, 0.1)
    assert time.process_time() - begun < 5
