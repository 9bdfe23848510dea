"""Reading of input files that are not sources of a corpus, such as example texts and evaluation texts."""

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

_HEAD = 100  # number of rows from which the columns of a table are detected


def iter_texts(path: Path, rule: str, *, text: str | None = None, exclude: Collection[str] = ()) -> Iterator[str]:
    """Yield the texts of a file, or of all files in a directory. All formats of corpus sources are supported.

    Args:
        path: The file or directory.
        rule: Explanation why text is needed, for the error message, e.g. "bits per byte need text to score".
        text: Template for the rows of tables, e.g. "{title}: {body}". By default, the text column is detected.
        exclude: Paths of files to skip, relative to the directory as in `Tables.columns`.

    Yields:
        One text at a time.

    Raises:
        DataError: The path does not exist or has no text.
    """
    source = FolderSource(path=path, text=text)
    reasons: list[str] = []
    found_any = False
    for item, opener in source.open_items(item for item in source.items() if item.path not in exclude):
        for found in extract(item, opener, source.record_options, source.format):
            if isinstance(found, Unreadable):
                reasons.append(f"{found.origin}: {found.reason}")
            elif found.text.strip():
                found_any = True
                yield well_formed(found.text)
    if not found_any:
        raise _no_text(path, reasons[:1], rule)


@dataclass(frozen=True, slots=True)
class Tables:
    """The table files at a path.

    Attributes:
        columns: Names of the columns of each table file, keyed by path. The column names are collected from the first
            rows. A file whose rows are strings has no columns.
        ambiguous: Candidate text columns, keyed by path, of each file in which several columns could be the text.
        only: Whether all files at the path are tables.
    """

    columns: dict[str, tuple[str, ...]]
    ambiguous: dict[str, tuple[str, ...]]
    only: bool


def find_tables(path: Path) -> Tables:
    """Find the table files at a path.

    An archive is a table if it contains a table. Exported chats do not count as tables, even in JSON or CSV files.

    Args:
        path: The file or directory.

    Raises:
        DataError: The path does not exist.
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
    """Yield the items of evaluation files, so that a corpus can be searched for them.

    In table files (JSON, JSON Lines, CSV, TSV, Parquet), an item consists of all strings of a record. In other files,
    an item is a paragraph, or a line if the text does not contain blank lines.

    Args:
        path: The file or directory.
        rule: Explanation why text is needed, for the error message.

    Yields:
        The origin and the texts of each item.

    Raises:
        DataError: The path does not exist, contains no text, or contains a file that cannot be read.
    """
    source = FolderSource(path=path)
    found_any = False
    for item, opener in source.open_items(source.items()):
        for found in _records(item, opener, source):
            if isinstance(found, Unreadable):
                if found.reason.startswith(UNSUPPORTED):  # For example, the file is an image.
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
    for found in extract(item, opener, source.record_options, source.format):
        if not isinstance(found, Extracted):
            yield found
            continue
        parts = found.text.strip("\n").split("\n\n" if "\n\n" in found.text.strip("\n") else "\n")
        for number, part in enumerate(filter(str.strip, parts), start=1):
            yield Record(f"{found.origin}#{number}", part)


def _strings(value: Any) -> Iterator[str]:
    """Yield all non-empty strings of a nested record."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            if value.strip():
                yield value
        elif isinstance(value, dict):
            stack.extend(reversed(value.values()))
        elif isinstance(value, list):
            stack.extend(reversed(value))


def _no_text(path: Path, reasons: list[str], rule: str) -> DataError:
    return DataError(
        f"{path}: no text" if not reasons else f"{path}: {reasons[0]}",
        rule=rule,
        fix=f"Give a file with text, or a directory of such files. Supported formats: {FORMAT_NAMES}.",
    )
