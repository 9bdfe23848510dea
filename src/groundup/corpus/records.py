"""Records to text: paths, templates, and the search for the text in tables and JSON that nobody described."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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
_DEEPEST = 8  # steps from a record to its text
_FIELDS = 20  # strings in a mapping, at most, that are the fields of one record; more are texts under their ids


@dataclass(frozen=True, slots=True)
class RecordRules:
    """The recipe's `records`, `each`, `text` and `join` (see `SourceConfig`)."""

    records: str | None = None
    each: str | None = None
    text: str | None = None
    join: str = "\n"
    html: bool = False  # the text has HTML tags in it
    extraction: Literal["fast", "best"] = "best"  # how the main text of pages is found

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


def fill_record_template(template: str, value: Any) -> str:
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
        if len(members) > _FIELDS and all(isinstance(member, str) for member in members):
            return members
        lists = [m for m in members if isinstance(m, list) and m and all(isinstance(r, dict) for r in m)]
        if len(lists) == 1 and not any(name in value for name in _TURN_NAMES):
            return list(lists[0])
    return [value]


def record_texts(records: Iterable[Any], rules: RecordRules) -> Iterator[tuple[str, Any, str]]:
    """(text, record, path) of each record; a text is "" where there is none.

    The path is where the text was found (looking 100 records ahead), or "" if the rules say it.
    """
    iterator = iter(records)
    path = ""
    if not rules.given:
        head = list(itertools.islice(iterator, _SAMPLE))
        path = find_text(head)
        rules = replace(rules, each=path)
        iterator = itertools.chain(head, iterator)
    for record in iterator:
        yield _text_of(record, rules), record, path


def _text_of(record: Any, rules: RecordRules) -> str:
    if rules.each is None:
        return _part_text(record, rules.text)
    parts = (_part_text(part, rules.text) for part in resolve(record, rules.each))
    return rules.join.join(part for part in parts if part.strip())


def _part_text(part: Any, template: str | None) -> str:
    if template is not None:
        return fill_record_template(template, part)
    return part if isinstance(part, str) else ""


def find_text(sample: Sequence[Any]) -> str:
    """Guess where the text of these records is: a path, "" for the record itself.

    In order: the record itself if it is a string; a field with a telling name; the turns of a conversation; the field
    that holds most text, one inside of others if it holds twice as much as all those at the top.
    """
    if any(isinstance(record, str) for record in sample):
        return ""
    top: Counter[str] = Counter()  # characters of text in each field
    inside: Counter[str] = Counter()  # ... in lists and mappings
    for record in sample:
        for name, value in record.items() if isinstance(record, dict) else ():
            if isinstance(value, str):
                top[name] += len(value.strip())
            elif _is_step(name):
                _count_characters(value, name, inside)
        if isinstance(record, list):
            _count_characters(record, "", inside)
    top = +top  # without those that hold nothing
    telling = min((name for name in top if name.lower() in _TEXT_NAMES), key=_telling, default=None)
    if telling is not None:
        return telling
    turns = next((paths for name in _TURN_NAMES if (paths := [p for p in inside if p.startswith(f"{name}.")])), [])
    if turns:
        named = [path for path in turns if _last(path) in _TEXT_NAMES]
        return min(named, key=lambda p: (p.count("."), _telling(p))) if named else max(turns, key=lambda p: inside[p])
    if inside and max(inside.values()) > 2 * max(top.values(), default=0):
        return max(inside, key=lambda path: inside[path])
    return max(top, key=lambda name: top[name], default="")


def ambiguous_columns(sample: Sequence[Any]) -> list[str]:
    """Return the columns with running text if there are several and no column has a telling name; otherwise none.

    A column has running text if most of its values have at least two words.
    """
    words: dict[str, list[int]] = {}
    for record in sample:
        for name, value in record.items() if isinstance(record, dict) else ():
            if name.lower() in _TEXT_NAMES or name in _TURN_NAMES:
                return []
            if isinstance(value, str) and value.strip():
                words.setdefault(name, []).append(len(value.split()))
    found = [name for name, counts in words.items() if sum(count > 1 for count in counts) > len(counts) / 2]
    return found if len(found) > 1 else []


def _last(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _telling(path: str) -> int:
    return _TEXT_NAMES.index(_last(path))


def _is_step(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", "*") and "." not in name


def _count_characters(value: Any, path: str, found: Counter[str]) -> None:
    """Add the characters of text at each path inside a value that stands at `path`."""
    if isinstance(value, str):
        if value.strip():
            found[path] += len(value)
        return
    if path.count(".") >= _DEEPEST:
        return
    below = f"{path}." if path else ""
    if isinstance(value, dict):
        for name, each in value.items():
            if _is_step(name):
                _count_characters(each, below + name, found)
    elif isinstance(value, list):
        for each in value:
            _count_characters(each, below + "*", found)


def outline(record: Any) -> str:
    """What a record holds, in few words: the names of all its fields, and the beginning of each value."""
    if not isinstance(record, dict):
        return json.dumps(record, default=str)[:300]
    return ", ".join(f"{name} = {json.dumps(value, default=str)[:40]}" for name, value in record.items())[:600]
