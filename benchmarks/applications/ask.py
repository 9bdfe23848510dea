"""Measure retrieval, answers, citations and refusals of `groundup ask` on question sets.

A question set is a directory with the folder `documents` and the table `questions.jsonl`, whose rows have these keys:

    question   the question
    answers    reference answers; empty if the documents do not answer the question
    document   file with the answer, relative to `documents`; optional
    topic      for questions without an answer: "same" or "other" as that of the documents; optional

`python -m benchmarks.applications.question_sets` writes such directories from tables with passages and questions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.applications.injections import count_followed
from groundup.commands import index as index_command
from groundup.core.console import Console
from groundup.evaluation.metrics.answers import normalized
from groundup.evaluation.metrics.overlap import overlap_f1
from groundup.retrieval import CitedAnswer, Index, Reader, answer_question

PASSAGES = 5
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Question:
    """A row of `questions.jsonl`."""

    question: str
    answers: tuple[str, ...] = ()
    document: str = ""
    topic: str = ""


def read_questions(directory: Path) -> list[Question]:
    """Return the questions of a set."""
    lines = (directory / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        Question(row["question"], tuple(row["answers"]), row.get("document") or "", row.get("topic") or "")
        for row in rows
    ]


def main() -> None:
    """Measure each question set, and print the means over all sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = os.environ.get("QUESTIONS", "").split()
    parser.add_argument("sets", nargs="*", default=sets, help="directories of question sets [$QUESTIONS]")
    parser.add_argument("--model", default=os.environ.get("MODEL"), help="model that reads passages [$MODEL]")
    parser.add_argument("--max-questions", type=int, help="maximum number of questions of a set [all]")
    options = parser.parse_args()
    if not options.sets:
        raise SystemExit("set QUESTIONS to directories of question sets (benchmarks/README.md)")
    with reader_of(options.model) as reader:
        followed, right = count_followed(reader)
        measured = {path: measure(Path(path), reader, options.max_questions) for path in options.sets}
    keys = ("recall_at_5", "answered", "citation_precision", "refusals", "index_passages_per_s", "ask_ms")
    means = {key: _mean([result[key] for result in measured.values() if result[key] is not None]) for key in keys}
    injections = {"injected_followed": followed, "right_despite_injection": right}
    print(json.dumps({**means, **injections, "model": options.model, "sets": measured}))


@contextmanager
def reader_of(model: str | None) -> Iterator[Reader | None]:
    """Open a model that reads passages, or yield None to quote sentences."""
    if model is None:
        yield None
        return
    from groundup.hub.loading import open_chat_model
    from groundup.inference import Engine
    from groundup.inference.prompting import format_for

    opened, template = open_chat_model(Path(model), None, Console())
    with Engine.of(opened, "auto") as engine:
        yield Reader(engine, format_for(opened.tokenizer, template, opened.stop_ids))


@contextmanager
def indexed(directory: Path) -> Iterator[Index]:
    """Index the documents of a question set in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="ask-") as work:
        config = index_command.IndexConfig(source=directory / "documents", out=Path(work) / "index")
        index_command.run(config, console=Console(quiet=True))
        yield Index.open(config.out)


def measure(directory: Path, reader: Reader | None, most: int | None = None) -> dict[str, Any]:
    """Index the documents of a question set, and ask its questions."""
    questions = read_questions(directory)[:most]
    started = time.process_time()
    with indexed(directory) as index:
        seconds = time.process_time() - started
        given = [(each, answer_question(index, each.question, reader, passages=PASSAGES)) for each in questions]
    return _figures(given) | {
        "documents": len(index.documents),
        "passages": len(index),
        "index_passages_per_s": round(len(index) / seconds, 1),
    }


def _figures(given: Sequence[tuple[Question, CitedAnswer]]) -> dict[str, Any]:
    answerable = [(each, answer) for each, answer in given if each.answers]
    answered = [(each, answer) for each, answer in answerable if answer.kind != "refusal"]
    unanswerable = {
        topic: [a for each, a in given if not each.answers and each.topic == topic] for topic in _topics(given)
    }
    refused = [answer.kind == "refusal" for answers in unanswerable.values() for answer in answers]
    return {
        "recall_at_5": _mean([_is_found(each, answer) for each, answer in answerable]),
        "answered": _mean([answer.kind != "refusal" for _, answer in answerable]),
        "citation_precision": _mean([_is_supported(each, answer) for each, answer in answered]),
        "quote_precision": _mean([_is_quoted(each, answer) for each, answer in answered]),
        "refusals": _mean(refused),
        "refusals_by_topic": {
            topic: _mean([answer.kind == "refusal" for answer in answers]) for topic, answers in unanswerable.items()
        },
        "f1": _mean([_f1(each, answer) for each, answer in answerable]),
        "f1_of_answered": _mean([_f1(each, answer) for each, answer in answered]),
        "answerable": len(answerable),
        "unanswerable": len(refused),
        "ask_ms": round(1000 * statistics.median(answer.seconds for _, answer in given), 1),
        "search_ms": round(1000 * statistics.median(answer.search_seconds for _, answer in given), 1),
        "memory_bytes": max(answer.memory_bytes for _, answer in given),
    }


def _topics(given: Sequence[tuple[Question, CitedAnswer]]) -> list[str]:
    return sorted({each.topic for each, _ in given if not each.answers})


def _is_found(question: Question, answer: CitedAnswer) -> bool:
    return any(holds(question, passage.origin, passage.text) for passage in answer.passages)


def _is_supported(question: Question, answer: CitedAnswer) -> bool:
    """Return whether the cited passage contains a reference answer."""
    return any(
        holds(question, passage.origin, passage.text)
        for citation in answer.citations
        for passage in answer.passages
        if passage.document == citation.document and passage.start <= citation.start < passage.end
    )


def _is_quoted(question: Question, answer: CitedAnswer) -> bool:
    """Return whether the quoted sentence contains a reference answer."""
    return any(holds(question, citation.origin, citation.quote) for citation in answer.citations)


def holds(question: Question, origin: str, text: str) -> bool:
    """Return whether a text of the right document contains the words of a reference answer."""
    inside = _spaced(text)
    named = not question.document or origin == question.document
    return named and any(_spaced(answer) in inside for answer in question.answers)


def _spaced(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _f1(question: Question, answer: CitedAnswer) -> float:
    """Return the token F1 of an answer without the numbers of its citations; 0 for a refusal."""
    if answer.kind == "refusal":
        return 0.0
    words = normalized(answer.text.removesuffix(" [1]")).split()
    return max(overlap_f1(words, normalized(reference).split()) for reference in question.answers)


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 4) if values else None


if __name__ == "__main__":
    main()
