"""Questions about long texts, each with the short passage that answers it, or with multiple-choice options.

Datasets such as NarrativeQA have questions to texts of several pages. A small model trains on passages of the size that
it reads later, and only on answers that it can copy from them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.core.config import Config, nearest, setting
from groundup.core.errors import ConfigError, DataError
from groundup.corpus.quality.sentences import split_sentences
from groundup.data.spans import NUM_OPTIONS, SpanType, normalized_words, option_spans
from groundup.data.tables import Table, cell_text

_MAX_ANSWER_WORDS = 6
_MIN_QUESTION_SHARE = 1 / 3  # of the question's words in its passage; below it, the passage rarely gives the answer
_MIN_WORD = 4  # characters; shorter words of a question occur in most passages


class PassageSettings(Config):
    """Columns of questions about long texts, and the size of the passages that the texts are divided into.

    The table gets the columns `passage`, `question` and `answer`. With `options`, it gets the columns `passage`,
    `count` and `questions`, a JSON list of multiple-choice questions.
    """

    text: str = setting("passage", help="column with the text")
    question: str = setting("question", help="column with the question")
    answer: str = setting("answer", help="column with the answer, or with a list of equivalent answers")
    max_characters: int = setting(900, help="maximum number of characters of a passage", ge=100)
    unanswerable: float = setting(
        0.0, help="fraction of the questions that get another passage of their text, and the answer refusal", ge=0, lt=1
    )
    refusal: str = setting("unknown", help="answer to a question that the passage does not answer")
    options: int = setting(
        0, help="number of multiple-choice questions per passage; 0: questions without options", ge=0, le=10
    )


@dataclass(frozen=True, slots=True)
class _Passage:
    """A passage with its normalized words, which many questions are compared with."""

    text: str
    words: str
    distinct: frozenset[str]

    @classmethod
    def of(cls, text: str) -> _Passage:
        words = normalized_words(text)
        return cls(text, f" {' '.join(words)} ", frozenset(words))

    def contains(self, answer: str) -> bool:
        return f" {' '.join(normalized_words(answer))} " in self.words

    def share(self, question: str) -> float:
        """Return the share of the longer words of a question that occur in the passage."""
        words = {word for word in normalized_words(question) if len(word) >= _MIN_WORD}
        return len(words & self.distinct) / len(words) if words else 0.0


@dataclass(frozen=True, slots=True)
class _Item:
    """A question whose answer occurs in the passage. `passages` are all passages of the text."""

    passages: Sequence[_Passage]
    passage: _Passage
    question: str
    answer: str


def with_passages(table: Table, settings: PassageSettings) -> Table:
    """Return a table with a short passage for each question of another table.

    A text is divided at sentences. A question gets the passage that contains its answer and most of its words. Rows are
    left out if no passage contains an answer of at most six words.

    Args:
        table: Table of questions about texts.
        settings: Columns and sizes.

    Raises:
        ConfigError: A column does not exist.
        DataError: No question has a passage.
    """
    for key in ("text", "question", "answer"):
        column = getattr(settings, key)
        if column not in table.columns:
            match = nearest(column, table.columns)
            raise ConfigError(
                f"passages.{key} = {column!r}: {table.name} has no column {column!r}, only "
                f"{', '.join(table.columns[:12])}",
                fix=f"Did you mean {match!r}?" if match else f"Set passages.{key} to one of these columns.",
            )
    items = list(_items(table, settings))
    if settings.options:
        rows = list(_multiple_choice(items, settings.options))
        columns: tuple[str, ...] = ("passage", "count", "questions")
    else:
        rows = [_answered(item, settings) for item in items]
        columns = ("passage", "question", "answer")
    if not rows:
        raise DataError(
            f"{table.name}: no question has an answer of at most {_MAX_ANSWER_WORDS} words that occurs in its text",
            fix="Use questions whose answers are words of the text, or set passages.max_characters to a larger value.",
        )
    return Table(table.name, columns, rows)


def _items(table: Table, settings: PassageSettings) -> Iterator[_Item]:
    divided: dict[str, list[_Passage]] = {}
    for row in table.rows:
        text, question = cell_text(row.get(settings.text)), cell_text(row.get(settings.question))
        given = row.get(settings.answer)
        answers = [cell_text(each).rstrip(". ") for each in (given if isinstance(given, list) else [given])]
        answers = [each for each in answers if normalized_words(each) and len(each.split()) <= _MAX_ANSWER_WORDS]
        if text not in divided:
            divided[text] = [_Passage.of(each) for each in _passages(text, settings.max_characters)]
        found = [
            (passage.share(question), passage, answer)
            for passage in divided[text]
            for answer in answers
            if passage.contains(answer)
        ]
        best = max(found, key=lambda each: each[0], default=None)
        if question and best is not None and best[0] >= _MIN_QUESTION_SHARE:
            yield _Item(divided[text], best[1], question, best[2])


def _passages(text: str, max_characters: int) -> list[str]:
    passages = [""]
    for sentence in (each for line in text.splitlines() for each in split_sentences(line) if each):
        if passages[-1] and len(passages[-1]) + len(sentence) >= max_characters:
            passages.append("")
        passages[-1] = f"{passages[-1]} {sentence}".strip()
    return passages


def _answered(item: _Item, settings: PassageSettings) -> dict[str, Any]:
    text = item.passage.text
    others = [each for each in item.passages if not each.contains(item.answer)]
    if others and random.Random(item.question).random() < settings.unanswerable:
        # The most similar passage is the most difficult to refuse.
        other = max(others, key=lambda each: each.share(item.question))
        return {"passage": other.text, "question": item.question, "answer": settings.refusal}
    return {"passage": text, "question": item.question, "answer": _as_written(item.answer, text)}


def _as_written(answer: str, passage: str) -> str:
    """Return an answer with the upper and lower case of its passage, so that it can be copied."""
    start = passage.casefold().find(answer.casefold())
    return passage[start : start + len(answer)] if start >= 0 else answer


def _multiple_choice(items: Sequence[_Item], max_questions: int) -> Iterator[dict[str, Any]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        questions = grouped.setdefault(item.passage.text, [])
        made = multiple_choice(item.question, item.answer, item.passage.text)
        if made is not None and item.question not in [each["question"] for each in questions]:
            questions.append(made)
    for passage, questions in grouped.items():
        for start in range(0, len(questions), max_questions):
            chosen = questions[start : start + max_questions]
            yield {
                "passage": passage,
                "count": str(len(chosen)),
                "questions": json.dumps(chosen, ensure_ascii=False),
            }


def multiple_choice(question: str, answer: str, passage: str) -> dict[str, Any] | None:
    """Return a question with its answer and three other spans of the passage of the same type.

    The answer comes first, so that a model chooses it before it writes the question.

    Args:
        question: Question about the passage.
        answer: Span of the passage.
        passage: Text that contains the answer.

    Returns:
        The answer, the question and the wrong options, or None if the passage has fewer than three other spans.
    """
    typed = _same_span(answer, passage)
    if typed is None:
        return None
    kind, span = typed
    own = set(normalized_words(span))
    others = [each for each in option_spans(passage)[kind] if not own & set(normalized_words(each))]
    draw = random.Random(f"{question}\0{passage}")
    if len(others) < NUM_OPTIONS - 1:
        return None
    return {"answer": span, "question": question, "wrong": draw.sample(others, NUM_OPTIONS - 1)}


def _same_span(answer: str, passage: str) -> tuple[SpanType, str] | None:
    wanted = normalized_words(answer)
    for kind, spans in option_spans(passage).items():
        for span in spans:
            if normalized_words(span) == wanted:
                return kind, span
    return None
