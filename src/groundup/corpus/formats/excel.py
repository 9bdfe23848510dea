"""Rows of Excel's workbooks (.xlsx, ECMA-376): the visible sheets, one after another, below their headings."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from groundup.corpus.formats.base import column_names
from groundup.corpus.streams import MAX_COMPRESSION_RATIO, MIN_BOMB_BYTES, DecompressionBombError

# openpyxl is imported inside the function: the command line imports this room for every --help.

_NO_SHEET = "no sheet with rows"


def read_excel_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Each row by column. The first row of a sheet that is not empty names the columns; empty rows are left out.

    Formulas give what Excel last computed. Dates and times are ISO 8601. Columns are named as by
    `column_names`; one without a name of its own is left out where its cell is empty.

    Raises:
        ValueError: no workbook that can be read, or no rows in it.
        BombError: it would become unreasonably large.
    """
    import openpyxl

    _require_sane(file)
    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except (KeyError, TypeError, AttributeError, OSError, SyntaxError) as error:  # what openpyxl says of damage
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
        if len(values) > len(header):  # cells beside the table
            header += [None] * (len(values) - len(header))
            names = column_names(header)
        row: dict[str, Any] = {}
        for name, given, value in zip(names, header, values, strict=False):
            if given is not None or value is not None:
                row[name] = value
        yield row


def _value(cell: Any) -> Any:
    if isinstance(cell, str):
        return cell if cell.strip() else None
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    return cell if isinstance(cell, bool | int | float) else None


def _require_sane(file: BinaryIO) -> None:
    # What a member says of its size is what comes out of it at most: the library stops there.
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        stored = sum(member.compress_size for member in members)
        if sum(member.file_size for member in members) > max(MIN_BOMB_BYTES, MAX_COMPRESSION_RATIO * stored):
            raise DecompressionBombError("compressed beyond all reason")
    file.seek(0)
