"""Tables of labelled data, from whatever file people keep them in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.files import file_digest
from groundup.core.types import text_id, well_formed
from groundup.corpus import FolderSource, Source
from groundup.corpus.formats import Record, Unreadable, format_of, read_records
from groundup.corpus.formats.tables import NOT_JSON, TOO_MANY_CELLS
from groundup.corpus.sources import SourceConfig
from groundup.corpus.sources.base import Format

ItemT = TypeVar("ItemT")

TABLE_FORMATS: tuple[Format, ...] = ("jsonl", "json", "csv", "tsv", "parquet", "xlsx", "chat")
_TEXT_FORMATS = tuple(format for format in get_args(Format) if format not in TABLE_FORMATS)
_SKIPPED = (NOT_JSON, TOO_MANY_CELLS)  # damage that leaves the neighbours whole
_RULE = (
    "a table is a .jsonl, .json, .csv, .tsv, .parquet or .xlsx file (also with .gz, .zst, .bz2) or an exported chat, "
    "whole and readable"
)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with named columns.

    Attributes:
        name: of the file, folder or sources, for messages.
        columns: every column that some row has, in the order of their first appearance.
        rows: in file order; a row may lack a column, and its values may be nested lists and mappings.
    """

    name: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]


def read_table(data: Path | Sequence[Source], *, console: Console | None = None) -> Table:
    """Read a file, all table files of a folder, or a recipe's sources (whose archives are fetched first).

    A conversation of a chat that a messenger or an assistant exported gets the column `messages`, and so does a record
    that is a list of turns; a bare string gets the column `text`, and a list of values the columns `column_1`,
    `column_2`, ... Broken rows among whole ones are left out, and that is said.

    Raises:
        DataError: nothing there, no table, a damaged, unreadable or empty file.
        DownloadError: a source's archive cannot be had.
    """
    console = console or Console()
    sources = _sources(data)
    name = data.name if isinstance(data, Path) else ", ".join(source.label for source in sources)
    rows: list[dict[str, Any]] = []
    skipped: list[Unreadable] = []
    for source in sources:
        source.fetch(console)
        for found in _records(source):
            if isinstance(found, Record):
                rows.append(_row(found))
            elif found.reason in _SKIPPED:
                skipped.append(found)
            else:
                raise _unreadable(found)
    if len(rows) <= len(skipped):
        if skipped:
            raise _unreadable(skipped[0])
        raise DataError(f"{name}: no rows", rule="a table holds at least one row", fix="Give a file that has some.")
    if skipped:
        first = f"the first is {skipped[0].origin}: {skipped[0].reason}"
        console.warn(f"{name}: {len(skipped):,} broken rows were left out, {first}.")
    return Table(name, tuple(dict.fromkeys(column for row in rows for column in row)), rows)


def table_identity(data: Path | Sequence[Source]) -> str:
    """A value that changes when the content of `read_table(data)` does; never uses the network.

    Raises:
        DataError: nothing there.
    """
    if isinstance(data, Path) and data.is_file():
        return file_digest(data)
    parts = [[source.model_dump(mode="json", exclude={"path"}), source.identity()] for source in _sources(data)]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def cell_text(value: Any) -> str:
    """A cell as text, without white space around it; "" where it holds nothing or nothing that is text.

    Numbers are written as Python does, booleans as "true" and "false"; a lone surrogate, which no file can hold, is
    U+FFFD.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):  # how pandas keeps what is missing
        return ""
    return well_formed(str(value)).strip() if isinstance(value, str | int | float) else ""


def spread(items: Sequence[ItemT], most: int) -> Sequence[ItemT]:
    """At most so many of the items, from everywhere among them: files often come sorted."""
    if len(items) <= most:
        return items
    return [items[place * len(items) // most] for place in range(most)]


def alike(text: str) -> str:
    """The identity of a text for comparisons: equal for texts that differ in case or white space only."""
    return text_id(casefolded(text))


def casefolded(text: str) -> str:
    """With small letters and single spaces."""
    return " ".join(text.casefold().split())


def _sources(data: Path | Sequence[Source]) -> Sequence[SourceConfig]:
    if isinstance(data, Path):
        if not data.exists():
            raise DataError(f"{data}: no such file", rule=_RULE, fix="Check the path.")
        return [FolderSource(path=data)]
    if not data:
        raise DataError("data: an empty list", rule="examples come from at least one source", fix="Name a source.")
    return data


def _records(source: SourceConfig) -> Iterable[Record | Unreadable]:
    items = source.items()
    tables = [
        item for item in items if source.format in TABLE_FORMATS or format_of(item.path) in (*TABLE_FORMATS, "archive")
    ]
    for item, opener in source.open_items(tables or items):  # what a chat is only its content tells
        yield from read_records(item, opener, source.records, source.format, source.chooses)


def _unreadable(found: Unreadable) -> DataError:
    detail = f" ({found.sample})" if found.sample else ""
    is_text = found.reason.split(" ", 1)[0] in _TEXT_FORMATS or found.reason.startswith("unsupported format")
    return DataError(
        f"{found.origin}: {found.reason}{detail}",
        rule=_RULE,
        fix="Convert it, or give it the suffix of its format." if is_text else "Mend the file, or get it again.",
    )


def _row(record: Record) -> dict[str, Any]:
    value = record.value
    if isinstance(value, dict):
        return {well_formed(str(column)): cell for column, cell in value.items() if column is not None}
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, list):
        if any(isinstance(each, dict | list) for each in value):
            return {"messages": value}
        return {f"column_{number}": each for number, each in enumerate(value, 1)}
    raise DataError(
        f"{record.origin}: {json.dumps(value, default=str)[:80]}",
        rule="a row of a table has columns",
        fix='Write each row as a JSON object, e.g. {"prompt": "...", "response": "..."}.',
    )
