"""Which columns of a table nobody described hold the text and the label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Any

from groundup.core.config import nearest
from groundup.core.errors import ConfigError, DataError
from groundup.data.tables import Table, cell_text, spread

# Names that people give to the two, the most telling first.
_TEXT_NAMES = (
    "text", "sentence", "content", "body", "document", "review", "comment", "tweet", "post", "message", "utterance",
    "query", "question", "email", "mail", "sms", "description", "article", "passage", "input", "title", "headline",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labels", "class", "category", "categories", "target", "intent", "topic", "sentiment", "polarity", "genre",
    "emotion", "tag", "stars", "rating", "score", "grade", "output", "type", "group", "y",
)  # fmt: skip
# What has few values and is no label: where a row comes from, in which language it is, which part it belongs to.
_OTHER_NAMES = (
    "id", "index", "idx", "split", "fold", "lang", "language", "locale", "source", "domain", "date", "year", "month",
    "time", "author", "user", "annotator", "country", "file", "url", "license", "licence", "version", "confidence",
)  # fmt: skip
_SAMPLE = 10_000  # rows that decide, from everywhere


def text_column(table: Table, *, taken: str) -> str:
    """The column with the text: one with a telling name, else the one whose strings are longest.

    Args:
        taken: the column with the label.

    Raises:
        DataError: no column of strings is left.
    """
    length: Counter[str] = Counter()
    for row in spread(table.rows, _SAMPLE):
        for name, value in row.items():
            if name != taken and isinstance(value, str):
                length[name] += len(value.strip())
    length = +length
    if not length:
        raise _not_found(table, "text", 'Say where it is: text = "COLUMN", or a template: text = "{subject}\\n{body}".')
    longest = max(length.values())
    # A title beside a body is no text to learn from, whatever its name; nor is an id called "text".
    named = [name for name in _by_name(length, _TEXT_NAMES) if length[name] * 10 >= longest]
    return named[0] if named else max(length, key=lambda name: length[name])


def label_column(table: Table, named: str | None, *, taken: Collection[str], numbers: bool) -> str:
    """The column with the label: `named`, else one with a telling name, else the only one with few values.

    Args:
        taken: columns that are text.
        numbers: the label is made of numbers, of which there may be many.

    Raises:
        ConfigError: `named` is no column.
        DataError: none, or several, could be it; the message lists them.
    """
    if named is not None:
        if named not in table.columns:
            match = nearest(named, table.columns)
            raise ConfigError(
                f"label = {named!r}",
                rule=f"{table.name} has the columns {', '.join(table.columns[:20])}",
                fix=f"Did you mean {match!r}?" if match else "Name one of them.",
            )
        return named
    values = {name: _values(table, name) for name in table.columns if name not in taken}
    usable = [name for name, counts in values.items() if numbers or _may_be_labels(counts)]
    single = next(
        (name for name in values if name.strip().lower() in ("label", "labels") and len(values[name]) == 1), ""
    )
    if single and not numbers:
        raise DataError(
            f"{table.name}: every label in {single!r} is {next(iter(values[single]))[:40]!r}",
            rule="a classifier needs two labels or more",
            fix='Give examples of others, too, or name another column: label = "COLUMN".',
        )
    by_name = _by_name(usable, _LABEL_NAMES)
    if by_name:
        return by_name[0]
    others = _by_name(usable, _OTHER_NAMES)
    likely = [name for name in usable if name not in others] or others
    if len(likely) == 1:
        return likely[0]
    if not likely:
        raise _not_found(table, "label (2 values or more, each on several rows)", 'Say where it is: label = "COLUMN".')
    raise DataError(
        f"{table.name}: " + ", ".join(f"{name!r} ({len(values[name])} values)" for name in likely[:8]),
        rule="each of these columns could hold the label",
        fix=f"Say which: label = {likely[0]!r}.",
    )


def _values(table: Table, name: str) -> Counter[str]:
    cells = (row.get(name) for row in spread(table.rows, _SAMPLE))
    return Counter(text for cell in cells if (text := cell_text(_only(cell))))


def _only(cell: Any) -> Any:
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def _may_be_labels(counts: Counter[str]) -> bool:
    """Few values on many rows, and names rather than prose."""
    rows = counts.total()
    return 2 <= len(counts) <= max(2, rows // 2) and sum(map(len, counts)) <= 100 * len(counts)


def _by_name(columns: Collection[str], telling: tuple[str, ...]) -> list[str]:
    """The columns with a telling name: exactly it before it as a word of the name, and the more telling first."""
    words = {name: [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)] for name in columns}
    exact = [name for word in telling for name in columns if name.strip().lower() == word]
    within = [name for word in telling for name in columns if word in words[name]]
    return list(dict.fromkeys(exact + within))


def _not_found(table: Table, what: str, fix: str) -> DataError:
    return DataError(
        f"{table.name}: no column that looks like a {what}",
        rule=f"its columns are {', '.join(table.columns[:20])}",
        fix=fix,
    )
