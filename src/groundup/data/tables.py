"""Reader of tables of examples in JSON Lines, JSON, CSV, TSV, Parquet and Excel files, and in exported chats."""

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
from groundup.core.plural import pluralize
from groundup.core.types import text_id, well_formed
from groundup.corpus import FolderSource, Source
from groundup.corpus.formats import Record, Unreadable, format_of, read_records
from groundup.corpus.formats.tables import NOT_JSON, TOO_MANY_CELLS
from groundup.corpus.sources import SourceConfig
from groundup.corpus.sources.base import Format

ItemT = TypeVar("ItemT")

TABLE_FORMATS: tuple[Format, ...] = ("jsonl", "json", "csv", "tsv", "parquet", "xlsx", "chat")
_TEXT_FORMATS = tuple(format for format in get_args(Format) if format not in TABLE_FORMATS)
_SKIPPED = (NOT_JSON, TOO_MANY_CELLS)  # Errors in a row that do not affect other rows.
_RULE = "a table is a .jsonl, .json, .csv, .tsv, .parquet or .xlsx file (also with .gz, .zst, .bz2) or an exported chat"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with named columns.

    Attributes:
        name: Name of the file, folder or sources, which messages show.
        columns: Names of all columns, in the order of their first appearance.
        rows: Rows in the order of the file. Some columns may be missing from a row. Values may be nested lists and
            mappings.
    """

    name: str
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]


def read_table(data: Path | Sequence[Source], *, console: Console | None = None) -> Table:
    """Read a file, all table files of a folder, or the sources of a recipe, which are downloaded if necessary.

    If a record does not have named columns, they are named as follows. The turns of a conversation are in the column
    `messages`, a string is in the column `text`, and a list of values is in the columns `column_1`, `column_2`, etc.
    Damaged rows are dropped, and a warning is printed.

    Args:
        data: File, folder or sources.
        console: Console that prints progress and warnings.

    Raises:
        DataError: The file does not exist, is not a table, or is damaged or empty.
        DownloadError: The archive of a source is not available.
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
        raise DataError(f"{name}: no rows", fix="Use a table with at least one row.")
    if skipped:
        first = f"the first is {skipped[0].origin}: {skipped[0].reason}"
        console.warn(f"{name}: dropped {pluralize(len(skipped), 'broken row')}; {first}.")
    return Table(name, tuple(dict.fromkeys(column for row in rows for column in row)), rows)


def table_identity(data: Path | Sequence[Source]) -> str:
    """Return a digest that changes if the content of `read_table(data)` changes. The network is not used.

    Args:
        data: File, folder or sources.

    Raises:
        DataError: The file does not exist.
    """
    if isinstance(data, Path) and data.is_file():
        return file_digest(data)
    parts = [[source.model_dump(mode="json", exclude={"path"}), source.identity()] for source in _sources(data)]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def cell_text(value: Any) -> str:
    """Return the content of a cell as text, stripped of leading and trailing white space.

    Numbers are formatted as in Python, booleans as "true" and "false". A lone surrogate is replaced by U+FFFD, because
    it cannot be encoded as UTF-8. The text is "" if the cell is empty or not a scalar.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):  # pandas represents a missing value by NaN.
        return ""
    return well_formed(str(value)).strip() if isinstance(value, str | int | float) else ""


def evenly_spaced(items: Sequence[ItemT], max_items: int) -> Sequence[ItemT]:
    """Return at most `max_items` items, which are evenly spaced because files are often sorted."""
    if len(items) <= max_items:
        return items
    return [items[place * len(items) // max_items] for place in range(max_items)]


def normalized_id(text: str) -> str:
    """Return an identifier that is the same for texts that differ only in case or white space."""
    return text_id(casefolded(text))


def casefolded(text: str) -> str:
    """Return the text with case folded and each run of white space replaced by one space."""
    return " ".join(text.casefold().split())


def _sources(data: Path | Sequence[Source]) -> Sequence[SourceConfig]:
    if isinstance(data, Path):
        if not data.exists():
            raise DataError(f"{data}: no such file", fix="Check the path.")
        return [FolderSource(path=data)]
    if not data:
        raise DataError("data is an empty list", fix="Name at least one source.")
    return data


def _records(source: SourceConfig) -> Iterable[Record | Unreadable]:
    items = source.items()
    tables = [
        item for item in items if source.format in TABLE_FORMATS or format_of(item.path) in (*TABLE_FORMATS, "archive")
    ]
    # If there are no files with the name of a table, all files are read, because only their content shows whether they
    # are exported chats.
    for item, opener in source.open_items(tables or items):
        yield from read_records(item, opener, source.records, source.format, source.chooses)


def _unreadable(found: Unreadable) -> DataError:
    detail = f" ({found.sample})" if found.sample else ""
    is_text = found.reason.split(" ", 1)[0] in _TEXT_FORMATS or found.reason.startswith("unsupported format")
    return DataError(
        f"{found.origin}: {found.reason}{detail}",
        rule=_RULE,
        fix="Convert the file to a table, or use the suffix of its format."
        if is_text
        else "Repair the file, or download it again.",
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
        f"{record.origin}: a row must have columns, but is {json.dumps(value, default=str)[:80]}",
        fix='Write each row as a JSON object, e.g. {"prompt": "...", "response": "..."}.',
    )
