"""Records to text: paths, templates, and the search for the text in tables and JSON that nobody described."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# Names that data sets give to their main text and to the turns of a conversation, the most telling first.
_TEXT_NAMES = (
    "text",
    "content",
    "body",
    "document",
    "article",
    "passage",
    "story",
    "markdown",
    "context",
    "value",
)
_TURN_NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "utterances")
FIELD = re.compile(r"\{([^{}]+)\}")
_SAMPLE = 100  # records that decide where the text is


@dataclass(frozen=True, slots=True)
class RecordRules:
    """The recipe's `records`, `each`, `text` and `join` (see `SourceConfig`)."""

    records: str | None = None
    each: str | None = None
    text: str | None = None
    join: str = "\n"
    html: bool = False  # the text has HTML tags in it

    @property
    def given(self) -> bool:
        """Whether the recipe says where the text is."""
        return self.each is not None or self.text is not None


def resolve(value: Any, path: str) -> list[Any]:
    """All values at `path`: names and list indices between dots, `*` for every element of a list or mapping.

    Lists on the way are not entered without `*`; what is not there gives nothing.
    """
    if isinstance(value, dict) and path in value:  # a column may have a dot in its name
        return [value[path]]
    found = [value]
    for step in path.split(".") if path else []:
        found = list(itertools.chain.from_iterable(_step(each, step) for each in found))
    return found


def _step(value: Any, step: str) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values() if step == "*" else ([value[step]] if step in value else [])
    if isinstance(value, list):
        if step == "*":
            return value
        if step.isdigit() and int(step) < len(value):
            return [value[int(step)]]
    return []


def fill(template: str, value: Any) -> str:
    """Replace each `{path}` by its values, one a line; a template none of whose fields is there gives ""."""
    filled = False

    def values(field: re.Match[str]) -> str:
        nonlocal filled
        found = [str(each) for each in resolve(value, field[1]) if isinstance(each, str | int | float)]
        filled = filled or any(text.strip() for text in found)
        return "\n".join(found)

    text = FIELD.sub(values, template)
    return text if filled else ""


def split_records(value: Any, path: str | None) -> list[Any]:
    """The records inside one JSON value: those at `path`, else its elements if they look like records."""
    if path is not None:
        return resolve(value, path)
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        members = list(value.values())
        if len(members) > 1 and all(isinstance(member, dict) for member in members):
            return members
        lists = [m for m in members if isinstance(m, list) and m and all(isinstance(r, dict) for r in m)]
        if len(lists) == 1 and not any(name in value for name in _TURN_NAMES):
            return list(lists[0])
    return [value]


def texts(records: Iterable[Any], rules: RecordRules) -> Iterator[tuple[str, Any]]:
    """(text, record) of each record; a text is "" where there is none. Looks 100 records ahead to find it."""
    iterator = iter(records)
    if not rules.given:
        head = list(itertools.islice(iterator, _SAMPLE))
        rules = find_text(head, rules.join)
        iterator = itertools.chain(head, iterator)
    for record in iterator:
        if rules.each is None:
            yield (fill(rules.text, record) if rules.text is not None else _scalar_text(record)), record
        else:
            parts = (_part_text(part, rules.text) for part in resolve(record, rules.each))
            yield rules.join.join(part for part in parts if part.strip()), record


def _scalar_text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _part_text(part: Any, template: str | None) -> str:
    return fill(template, part) if template is not None else _scalar_text(part)


def find_text(sample: Sequence[Any], join: str) -> RecordRules:
    """Guess where the text of these records is.

    In order: the record itself if it is a string; a field with a telling name; the turns of a conversation;
    the field whose strings are longest. Rules that find nothing come out where there is no text at all.
    """
    if any(isinstance(record, str) for record in sample):
        return RecordRules(join=join)
    fields: dict[str, int] = {}  # characters of text in each field
    for record in sample:
        for name, value in record.items() if isinstance(record, dict) else ():
            if isinstance(value, str) and value.strip():
                fields[name] = fields.get(name, 0) + len(value)
    telling = [name for name in _TEXT_NAMES for field in fields if field.lower() == name]
    for name in telling:
        return RecordRules(text="{" + next(f for f in fields if f.lower() == name) + "}", join=join)
    for record in sample:
        for name in _TURN_NAMES:
            if isinstance(record, dict) and isinstance(record.get(name), list) and record[name]:
                return _turn_rules(name, record[name], join)
    if not fields:
        return RecordRules(text="{text}", join=join)
    return RecordRules(text="{" + max(fields, key=lambda name: fields[name]) + "}", join=join)


def _turn_rules(name: str, turns: list[Any], join: str) -> RecordRules:
    path, turn = f"{name}.*", turns[0]
    while isinstance(turn, list) and turn:
        path, turn = f"{path}.*", turn[0]
    if not isinstance(turn, dict):
        return RecordRules(each=path, join=join)
    strings = [field for field, value in turn.items() if isinstance(value, str)]
    named = [field for field in _TEXT_NAMES if field in strings]
    field = named[0] if named else max(strings, key=lambda f: len(turn[f]), default="text")
    return RecordRules(each=path, text="{" + field + "}", join=join)
