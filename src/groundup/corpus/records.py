"""Convert records of tables and JSON files to text, with a path, a template, or detection of the text field."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

# Common names of the main text and of conversation turns in datasets, in order of preference.
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
_SAMPLE = 100  # number of records from which the text field is detected
_MAX_DEPTH = 8  # maximum number of steps in a path from a record to its text
_MAX_FIELDS = 20  # If a JSON dictionary has more than 20 values and all are strings, each string is a record.


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """The settings that describe how the text of a record is built (see `SourceConfig`).

    Attributes:
        records: Path to the records in a JSON file.
        each: Path to the parts of a record, such as the turns of a conversation.
        text: Template from which the text of a record or part is built, e.g. "{title}: {body}".
        join: Separator between the texts of the parts of a record.
        html: Whether the text contains HTML tags that must be rendered.
        extraction: Method of main-text extraction for web pages.
    """

    records: str | None = None
    each: str | None = None
    text: str | None = None
    join: str = "\n"
    html: bool = False
    extraction: Literal["fast", "best"] = "best"

    @property
    def has_text_path(self) -> bool:
        """Whether the recipe defines where the text of a record is, so that it need not be detected."""
        return self.each is not None or self.text is not None


def resolve(value: Any, path: str) -> list[Any]:
    """Return all values at a path.

    Args:
        value: A record that consists of nested dictionaries, lists and scalars.
        path: Names and list indices separated by dots. `*` selects all elements of a list or dictionary.
    """
    if isinstance(value, dict) and path in value:  # A column name may contain a dot.
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
    """Replace each `{path}` in a template by the values at this path, one per line.

    If none of the paths has a non-empty value, "" is returned.
    """
    filled = False

    def values(field: re.Match[str]) -> str:
        nonlocal filled
        found = [str(each) for each in resolve(value, field[1]) if isinstance(each, str | int | float)]
        filled = filled or any(text.strip() for text in found)
        return "\n".join(found)

    text = FIELD.sub(values, template)
    return text if filled else ""


def split_records(value: Any, path: str | None) -> list[Any]:
    """Return the records in a JSON value.

    If `path` is given, the records are the values at this path. If `path` is None, the records are the elements of the
    JSON value if these look like records, otherwise the JSON value itself is the only record.
    """
    if path is not None:
        return resolve(value, path)
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        members = list(value.values())
        if len(members) > 1 and all(isinstance(member, dict) for member in members):
            return members
        if len(members) > _MAX_FIELDS and all(isinstance(member, str) for member in members):
            return members
        lists = [m for m in members if isinstance(m, list) and m and all(isinstance(r, dict) for r in m)]
        if len(lists) == 1 and not any(name in value for name in _TURN_NAMES):
            return list(lists[0])
    return [value]


def record_texts(records: Iterable[Any], options: RecordOptions) -> Iterator[tuple[str, Any, str]]:
    """Yield (text, record, path) for each record. The text is "" if the record has no text.

    If the options do not define where the text is, its path is detected from the first 100 records. The returned `path`
    is the detected path, or "" if the options define where the text is.
    """
    iterator = iter(records)
    path = ""
    if not options.has_text_path:
        head = list(itertools.islice(iterator, _SAMPLE))
        path = find_text(head)
        options = replace(options, each=path)
        iterator = itertools.chain(head, iterator)
    for record in iterator:
        yield _text_of(record, options), record, path


def _text_of(record: Any, options: RecordOptions) -> str:
    if options.each is None:
        return _part_text(record, options.text)
    parts = (_part_text(part, options.text) for part in resolve(record, options.each))
    return options.join.join(part for part in parts if part.strip())


def _part_text(part: Any, template: str | None) -> str:
    if template is not None:
        return fill_record_template(template, part)
    return part if isinstance(part, str) else ""


def find_text(sample: Sequence[Any]) -> str:
    """Detect which field of the records contains the text.

    The first of the following that exists is used: a record that is a string itself, a top-level field with a common
    name such as "text", the turns of a conversation, or the field with the most text. A nested field is preferred to
    the top-level fields only if it has more than twice as much text as any of them.

    Args:
        sample: Some of the records.

    Returns:
        The path of the text, or "" if the record itself is the text.
    """
    if any(isinstance(record, str) for record in sample):
        return ""
    top: Counter[str] = Counter()  # number of characters in each top-level field
    nested: Counter[str] = Counter()  # number of characters at each path in nested lists and dictionaries
    for record in sample:
        for name, value in record.items() if isinstance(record, dict) else ():
            if isinstance(value, str):
                top[name] += len(value.strip())
            elif _is_step(name):
                _count_characters(value, name, nested)
        if isinstance(record, list):
            _count_characters(record, "", nested)
    top = +top  # removes empty fields
    known = min((name for name in top if name.lower() in _TEXT_NAMES), key=_name_rank, default=None)
    if known is not None:
        return known
    turns = next((paths for name in _TURN_NAMES if (paths := [p for p in nested if p.startswith(f"{name}.")])), [])
    if turns:
        named = [path for path in turns if _last(path) in _TEXT_NAMES]
        return min(named, key=lambda p: (p.count("."), _name_rank(p))) if named else max(turns, key=lambda p: nested[p])
    if nested and max(nested.values()) > 2 * max(top.values(), default=0):
        return max(nested, key=lambda path: nested[path])
    return max(top, key=lambda name: top[name], default="")


def ambiguous_columns(sample: Sequence[Any]) -> list[str]:
    """Return the candidate text columns if the text column is ambiguous, otherwise an empty list.

    The text column is ambiguous if no column has a common name such as "text", and several columns have at least two
    words in most rows.
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


def _name_rank(path: str) -> int:
    return _TEXT_NAMES.index(_last(path))


def _is_step(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", "*") and "." not in name


def _count_characters(value: Any, path: str, found: Counter[str]) -> None:
    """Add to `found` the number of characters at each path inside `value`, which is itself at `path`."""
    if isinstance(value, str):
        if value.strip():
            found[path] += len(value)
        return
    if path.count(".") >= _MAX_DEPTH:
        return
    prefix = f"{path}." if path else ""
    if isinstance(value, dict):
        for name, each in value.items():
            if _is_step(name):
                _count_characters(each, prefix + name, found)
    elif isinstance(value, list):
        for each in value:
            _count_characters(each, prefix + "*", found)


def outline(record: Any) -> str:
    """Return a short description of a record, with the name of each field and the beginning of its value."""
    if not isinstance(record, dict):
        return json.dumps(record, default=str)[:300]
    return ", ".join(f"{name} = {json.dumps(value, default=str)[:40]}" for name, value in record.items())[:600]
