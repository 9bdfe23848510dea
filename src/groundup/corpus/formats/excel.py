"""Read the rows of all visible sheets of Excel workbooks (.xlsx, ECMA-376)."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from groundup.corpus.formats.base import column_names
from groundup.corpus.streams import MAX_COMPRESSION_RATIO, MIN_BOMB_BYTES, DecompressionBombError

# openpyxl is imported inside the function, because the command line imports this module for every --help.

_NO_SHEET = "no sheet with rows"


def read_excel_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield each non-empty row as a dict keyed by column name.

    The first non-empty row of a sheet is the header. A formula is replaced by the value that Excel last computed. Dates
    and times are converted to ISO 8601 strings. An empty cell is omitted if its column has no name.

    Args:
        file: The workbook.

    Raises:
        ValueError: The file is not a readable workbook, or the workbook has no rows.
        DecompressionBombError: The compression ratio of the workbook is too high.
    """
    import openpyxl

    _check_size(file)
    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    # openpyxl raises these errors for damaged files.
    except (KeyError, TypeError, AttributeError, OSError, SyntaxError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    found = 0
    try:
        for sheet in book.worksheets:
            if sheet.sheet_state == "visible":
                for row in _rows(sheet):
                    found += 1
                    yield row
    except (KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    finally:
        book.close()
    if not found:
        raise ValueError(_NO_SHEET)


def _rows(sheet: Any) -> Iterator[dict[str, Any]]:
    header: list[str | None] = []
    names: tuple[str, ...] = ()
    for cells in sheet.iter_rows(values_only=True):
        values = [_value(cell) for cell in cells]
        if all(value is None for value in values):
            continue
        if not header:
            header = [None if value is None else str(value) for value in values]
            names = column_names(header)
            continue
        if len(values) > len(header):  # the row has cells to the right of the header
            header += [None] * (len(values) - len(header))
            names = column_names(header)
        row: dict[str, Any] = {}
        for name, heading, value in zip(names, header, values, strict=False):
            if heading is not None or value is not None:
                row[name] = value
        yield row


def _value(cell: Any) -> Any:
    if isinstance(cell, str):
        return cell if cell.strip() else None
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    return cell if isinstance(cell, bool | int | float) else None


def _check_size(file: BinaryIO) -> None:
    # The declared sizes are sufficient for this check, because zipfile never reads more than the declared size of a
    # member.
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        stored = sum(member.compress_size for member in members)
        if sum(member.file_size for member in members) > max(MIN_BOMB_BYTES, MAX_COMPRESSION_RATIO * stored):
            raise DecompressionBombError("compression ratio too high")
    file.seek(0)
