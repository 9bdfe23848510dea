"""Write a question set from tables with passages and questions, as `benchmarks.applications.ask` reads it.

A table is a JSONL file with the columns `passage`, `question` and `answer`, or a JSON file in the format of SQuAD. Each
passage becomes a document. The selection depends only on the texts and the options, so that it can be repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A question to a passage. It has no answers if the passage does not answer it."""

    passage: str
    question: str
    answers: tuple[str, ...]
    article: str


def main() -> None:
    """Write a question set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="directory to write")
    parser.add_argument("tables", nargs="+", type=Path, help="tables with passages and questions")
    parser.add_argument("--other", nargs="*", default=[], type=Path, help="tables with questions of other topics")
    parser.add_argument(
        "--distractors", nargs="*", default=[], type=Path, help="tables whose passages fill the documents"
    )
    parser.add_argument("--unknown", default="unknown", help="answer that marks a question without an answer [unknown]")
    parser.add_argument(
        "--held-out",
        type=int,
        default=0,
        help="every N-th passage is not indexed; its questions have no answer [0: none]",
    )
    parser.add_argument("--documents", type=int, default=500, help="maximum number of documents [500]")
    parser.add_argument("--answerable", type=int, default=140, help="maximum number of questions with an answer [140]")
    parser.add_argument(
        "--unanswerable", type=int, default=30, help="maximum number of questions without an answer per topic [30]"
    )
    options = parser.parse_args()
    rows = _shuffled([row for table in options.tables for row in _read(table, options.unknown)])
    passages = list(dict.fromkeys(row.passage for row in rows))
    hidden = set(passages[:: options.held_out] if options.held_out else ())
    indexed = [passage for passage in passages if passage not in hidden][: options.documents]
    files = {passage: f"{number:04}.txt" for number, passage in enumerate(indexed)}
    distractors = [row.passage for row in _shuffled([row for table in options.distractors for row in _read(table, "")])]
    for passage in distractors:
        if len(files) < options.documents and passage not in hidden:
            files.setdefault(passage, f"{len(files):04}.txt")
    questions: list[dict[str, Any]] = [
        {"question": row.question, "answers": row.answers, "document": files[row.passage]}
        for row in rows
        if row.answers and row.passage in files
    ][: options.answerable]
    covered = {row.article for row in rows if row.passage in files}
    same = [
        row.question
        for row in rows
        if (row.passage in files and not row.answers) or (row.passage in hidden and row.article in covered)
    ]
    other = [row.question for table in options.other for row in _shuffled(list(_read(table, "")))]
    for topic, texts in (("same", same), ("other", other)):
        questions += [{"question": text, "answers": [], "topic": topic} for text in texts[: options.unanswerable]]
    _write(options.out, files, questions)


def _read(table: Path, unknown: str) -> Iterator[Row]:
    if table.suffix == ".json":
        for article in json.loads(table.read_text(encoding="utf-8"))["data"]:
            title = article.get("title", "")
            for paragraph in article["paragraphs"]:
                for each in paragraph["qas"]:
                    answers = () if each.get("is_impossible") else tuple(answer["text"] for answer in each["answers"])
                    yield Row(paragraph["context"], each["question"], answers, title or paragraph["context"])
        return
    for line in table.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        given = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        passage = row.get("passage", "")
        yield Row(passage, row["question"], tuple(each for each in given if each != unknown), "")


def _shuffled(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: hashlib.sha256(f"{row.passage}\n{row.question}".encode()).digest())


def _write(out: Path, files: dict[str, str], questions: Sequence[dict[str, Any]]) -> None:
    (out / "documents").mkdir(parents=True)
    for passage, name in files.items():
        (out / "documents" / name).write_text(passage, encoding="utf-8")
    lines = (json.dumps(question, ensure_ascii=False) + "\n" for question in questions)
    (out / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{out}: {len(files):,} documents, {len(questions):,} questions")


if __name__ == "__main__":
    main()
