"""Reader of multiple-choice questions and minimal pairs in a table.

A minimal pair is a question without a prompt. Its choices are an acceptable and an unacceptable sentence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.core.errors import ConfigError, DataError
from groundup.core.types import well_formed
from groundup.corpus.records import FIELD, resolve
from groundup.data.tables import Table, cell_text

# Common names of the columns of multiple-choice data sets. The most specific names come first.
_CHOICES = ("choices", "options", "endings", "candidates", "answers")
_ANSWERS = ("answer", "label", "gold", "target", "correct", "answer_index", "answerKey", "gt")
_QUESTIONS = ("question", "query", "prompt", "context", "ctx", "premise", "goal", "sentence", "text")
_PAIRS = (("sentence_good", "sentence_bad"), ("good", "bad"), ("acceptable", "unacceptable"))  # the first is BLiMP's
# Common names of columns that divide a data set into parts, such as the paradigms (UID) and the fields of BLiMP.
_GROUPS = ("field", "linguistics_term", "UID", "category", "subject", "task", "topic", "type", "difficulty", "language")
_MAX_GROUPS = 200
PROMPT = "Question: {question}\nAnswer:"  # Prompt of most multiple-choice tasks in lm-evaluation-harness.
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple-choice question.

    Attributes:
        prompt: Text that precedes the choice, which may be empty.
        choices: Two or more choices. A space is inserted between the prompt and a choice.
        answer: Index of the correct choice.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Choices:
    """Multiple-choice questions of a table.

    Attributes:
        items: The questions.
        columns: Description of the columns that were read.
        dropped: Number of dropped rows for each reason.
        groups: The group of each question, for each column that divides the questions into groups.
        kind: "questions" or "minimal pairs".
    """

    items: list[Choice]
    columns: str
    dropped: Counter[str] = field(default_factory=Counter)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    kind: str = "questions"


def pair_columns(table: Table) -> tuple[str, str] | None:
    """Return the names of the columns with acceptable and unacceptable sentences, or None if the table has none."""
    return next((pair for pair in _PAIRS if set(pair) <= set(table.columns)), None)


def has_choices(table: Table) -> bool:
    """Return whether a table has multiple-choice questions or minimal pairs."""
    return choice_columns(table) is not None or pair_columns(table) is not None


def choice_columns(table: Table) -> tuple[str, str, str | None] | None:
    """Return the names of the columns with the choices, the answer and the question.

    The function returns None if the table does not have a column with choices and a column with answers. The name of
    the question column is None if the table does not have such a column.
    """
    sample = table.rows[:200]
    listed = [c for c in table.columns if sample and all(len(_listed(row.get(c))) >= 2 for row in sample)]
    choices = next((c for c in _CHOICES if c in listed), None)
    answer = next((c for c in _ANSWERS if c in table.columns and c != choices), None)
    if choices is None or answer is None:
        return None
    return choices, answer, next((c for c in _QUESTIONS if c in table.columns and c not in (choices, answer)), None)


def read_choices(table: Table, template: str | None = None, groups: Sequence[str] | None = None) -> Choices:
    r"""Read the multiple-choice questions or the minimal pairs of a table.

    Minimal pairs are in the columns `sentence_good` and `sentence_bad`, as in BLiMP (arXiv:1912.00582). Otherwise, the
    table needs a column with the choices and a column with the answer. The choices are a list (as JSON in CSV
    files) or have the form `{"text": [...], "label": [...]}` as in ARC. The answer is given as the index of the correct
    choice from 0, as its letter, as its label, or as its text. A column with the question is optional.

    Args:
        table: The table.
        template: Template of the prompt, e.g. "{context}\nQ: {question}\nA:"; default: "Question: ...\nAnswer:" if the
            table has a column with questions, otherwise an empty prompt.
        groups: Columns that divide the questions into groups; default: columns with common names, such as `category`.

    Raises:
        ConfigError: A column that the template refers to does not exist.
        DataError: The columns were not found, or none of the rows contains a valid question.
    """
    columns_of_groups = group_columns(table, groups)
    if template is None and (pair := pair_columns(table)) is not None:
        return _read_pairs(table, pair, columns_of_groups)
    found = choice_columns(table)
    if found is None:
        raise DataError(
            f"{table.name} has the columns {', '.join(table.columns[:12])}",
            rule="multiple-choice questions need a column with a list of choices, and a column with the answer",
            fix=f"Use common column names: {', '.join(_CHOICES[:3])}; {', '.join(_ANSWERS[:3])}; question.",
        )
    choices, answer, question = found
    missing = sorted({path.split(".")[0] for path in FIELD.findall(template or "")} - set(table.columns))
    if missing:
        raise ConfigError(
            f"text = {template!r}: no column {missing[0]!r}, only {', '.join(table.columns[:12])}",
            fix=f"Correct {missing[0]}.",
        )
    template = template or (PROMPT.replace("question", question) if question else "")
    items, kept, dropped = [], [], Counter[str]()
    for row in table.rows:
        texts = _listed(row.get(choices))
        place = _place(row.get(answer), texts, row.get(choices))
        prompt = FIELD.sub(lambda field: "".join(map(_text, resolve(row, field[1])[:1])), template)  # noqa: B023
        if len(texts) < 2 or not all(text.strip() for text in texts):
            dropped["fewer than two choices"] += 1
        elif place is None:
            dropped["answer that is not a choice"] += 1
        elif question and not cell_text(row.get(question)):
            dropped["empty question"] += 1
        else:
            items.append(Choice(prompt, texts, place))
            kept.append(row)
    if not items:
        raise DataError(
            f"{table.name}: none of {len(table.rows):,} rows contains a valid question ({dict(dropped)})",
            rule="an answer is the index of a choice from 0, its letter, or its text",
            fix="Correct the table.",
        )
    columns = f"{question + ', ' if question else ''}{choices} -> {answer}"
    return Choices(items, columns, dropped, grouped(kept, columns_of_groups))


def _read_pairs(table: Table, pair: tuple[str, str], columns_of_groups: Sequence[str]) -> Choices:
    complete = [row for row in table.rows if all(cell_text(row.get(column)) for column in pair)]
    if not complete:
        raise DataError(
            f"{table.name}: none of {len(table.rows):,} rows has a text in both {pair[0]} and {pair[1]}",
            fix="Correct the table.",
        )
    items = [Choice("", tuple(cell_text(row[column]) for column in pair), 0) for row in complete]
    dropped = Counter({"empty sentence": missing} if (missing := len(table.rows) - len(complete)) else {})
    return Choices(items, " > ".join(pair), dropped, grouped(complete, columns_of_groups), "minimal pairs")


def group_columns(table: Table, given: Sequence[str] | None) -> Sequence[str]:
    """Return the given columns, or the columns with common names that have between 2 and `_MAX_GROUPS` values."""
    if given is None:
        values = {name: {cell_text(row.get(name)) for row in table.rows} for name in _GROUPS if name in table.columns}
        return [name for name, found in values.items() if 2 <= len(found) <= _MAX_GROUPS]
    unknown = [name for name in given if name not in table.columns]
    if unknown:
        raise ConfigError(
            f"group = {unknown[0]!r}: {table.name} has the columns {', '.join(table.columns[:12])}",
            fix=f"Correct {unknown[0]}.",
        )
    return given


def grouped(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, list[str]]:
    """Return the text of these columns in each row."""
    return {column: [cell_text(row.get(column)) for row in rows] for column in columns}


def _listed(value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    return tuple(map(_text, value)) if isinstance(value, list | tuple) else ()


def _text(value: Any) -> str:
    # Leading and trailing white space is kept, because it affects the tokens and other evaluation tools keep it too.
    return well_formed(value) if isinstance(value, str) else cell_text(value)


def _place(answer: Any, texts: tuple[str, ...], cell: Any) -> int | None:
    labels = [cell_text(each) for each in cell.get("label") or ()] if isinstance(cell, Mapping) else []
    named = cell_text(answer)
    if named in labels:
        place = labels.index(named)
    elif named in (stripped := [text.strip() for text in texts]):
        place = stripped.index(named)
    elif named.isdecimal() and named.isascii():
        place = int(named[:9])
    elif len(named) == 1 and named.upper() in _LETTERS:
        place = _LETTERS.index(named.upper())
    else:
        return None
    return place if place < len(texts) else None
