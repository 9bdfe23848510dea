"""Files that a user gives beside the sources: examples, evaluations; read as sources are, but nothing may be lost."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError
from groundup.core.types import well_formed
from groundup.corpus.formats import UNSUPPORTED, Extracted, Record, Unreadable, extract, format_of, read_records
from groundup.corpus.formats.tables import RECORD_READERS, is_exported_chat
from groundup.corpus.records import ambiguous_columns
from groundup.corpus.sources import FolderSource, Item
from groundup.corpus.sources.base import FORMAT_NAMES, Opener

_HEAD = 100  # rows that name the columns of a table


def iter_texts(path: Path, rule: str, *, text: str | None = None, without: Collection[str] = ()) -> Iterator[str]:
    """The texts of a file, or of all files of a folder, in every format that a source may have.

    Args:
        rule: what needs them, for the error: "bits per byte need text to score".
        text: template of the text of a table's rows, e.g. "{title}: {body}"; by default their text column is guessed.
        without: files that are left out, as `find_tables` names them.

    Raises:
        DataError: nothing there, or no text in it.
    """
    source = FolderSource(path=path, text=text)
    reasons: list[str] = []
    found_any = False
    for item, opener in source.open_items(item for item in source.items() if item.path not in without):
        for found in extract(item, opener, source.rules, source.format):
            if isinstance(found, Unreadable):
                reasons.append(f"{found.origin}: {found.reason}")
            elif found.text.strip():
                found_any = True
                yield well_formed(found.text)
    if not found_any:
        raise _no_text(path, reasons[:1], rule)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables among given files.

    Attributes:
        columns: file -> the columns of its first rows; of rows that are bare strings none.
        ambiguous: file -> its columns with running text, if the text could be any of several.
        only: there are no other files.
    """

    columns: dict[str, tuple[str, ...]]
    ambiguous: dict[str, tuple[str, ...]]
    only: bool


def find_tables(path: Path) -> Tables:
    """Which of the files at `path` are tables: rows of which nothing says which column is text to read.

    An archive counts as one if any file in it does. Exported chats are read as text, whatever their format.

    Raises:
        DataError: nothing there.
    """
    source = FolderSource(path=path)
    columns: dict[str, tuple[str, ...]] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    items = source.items()
    for item, opener in source.open_items(items):
        records = (found for found in read_records(item, opener, None, None) if isinstance(found, Record))
        first = list(islice(records, _HEAD))
        if first and not all(is_exported_chat(record.value) for record in first):
            rows = [record.value for record in first if isinstance(record.value, dict)]
            columns[item.path] = tuple(dict.fromkeys(str(name) for row in rows for name in row))
            if rivals := ambiguous_columns(rows):
                ambiguous[item.path] = tuple(rivals)
    return Tables(columns, ambiguous, only=len(columns) == len(items))


def iter_items(path: Path, rule: str) -> Iterator[tuple[str, list[str]]]:
    """The items of evaluation files: where each is, and its texts.

    An item is a record of a table file (JSON, JSON lines, CSV, TSV, Parquet), and its texts are all the strings in
    it. Of other files it is a paragraph, or a line where no blank line sets paragraphs apart.

    Raises:
        DataError: nothing there, no text in it, or a part that cannot be read: it could not be looked for.
    """
    source = FolderSource(path=path)
    found_any = False
    for item, opener in source.open_items(source.items()):
        for found in _records(item, opener, source):
            if isinstance(found, Unreadable):
                if found.reason.startswith(UNSUPPORTED):  # a picture in the folder, perhaps
                    continue
                raise _no_text(path, [f"{found.origin}: {found.reason}"], rule)
            if texts := [well_formed(text) for text in _strings(found.value)]:
                found_any = True
                yield found.origin, texts
    if not found_any:
        raise _no_text(path, [], rule)


def _records(item: Item, opener: Opener, source: FolderSource) -> Iterator[Record | Unreadable]:
    if format_of(item.path) in RECORD_READERS:
        yield from read_records(item, opener, None, None)
        return
    for found in extract(item, opener, source.rules, source.format):
        if not isinstance(found, Extracted):
            yield found
            continue
        parts = found.text.strip("\n").split("\n\n" if "\n\n" in found.text.strip("\n") else "\n")
        for number, part in enumerate(filter(str.strip, parts), start=1):
            yield Record(f"{found.origin}#{number}", part)


def _strings(value: Any) -> Iterator[str]:
    """All strings in a record, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if value.strip():
                yield value
        elif isinstance(value, dict):
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _no_text(path: Path, reasons: list[str], rule: str) -> DataError:
    return DataError(
        f"{path}: no text in it" if not reasons else f"{path}: {reasons[0]}",
        rule=rule,
        fix=f"Give a file with text in it, or a folder of such. Read are {FORMAT_NAMES}.",
    )
