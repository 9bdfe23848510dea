"""Reading of an application's input from a file, an argument or standard input, and output of results as tables."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.errors import DataError, GroundupError
from groundup.core.files import expand_home
from groundup.corpus.user_files import iter_texts

if TYPE_CHECKING:
    from groundup.apps.steps import AppResult
    from groundup.inference.classification import Classified

STANDARD_INPUT = "-"
NO_TEXT = "no text: the cell is empty"
_MAX_FILE_NAME = 240  # characters; a longer argument is text and not a file name


def read_input(given: str) -> str:
    """Return the text that a command-line argument refers to: a file, the argument itself, or "-" for standard input.

    Args:
        given: Name of a file in a supported format, a text, or "-".

    Raises:
        DataError: The argument looks like a file name but the file does not exist, or the file contains no text.
    """
    if given == STANDARD_INPUT:
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace").read()
    path = expand_home(Path(given)) if 0 < len(given) <= _MAX_FILE_NAME and "\n" not in given else None
    if path is not None and path.exists():
        return "\n\n".join(iter_texts(path, "the application needs text"))
    if path is not None and path.suffix[1:].isalnum() and not any(c.isspace() for c in given):
        raise DataError(
            f"{given}: no such file",
            fix="Check the name. To use the argument as text, add a space to it.",
        )
    return given


def batch_result_lines(
    rows: Sequence[Mapping[str, Any]], results: Sequence[AppResult | GroundupError], *, as_csv: bool
) -> Iterable[str]:
    """Return the lines of a table that contains each input row and its result.

    Each row gets the columns `output` and probabilities, or the column `error` if the application failed.

    Args:
        rows: Rows of the input table.
        results: Result of each row, or the error that occurred.
        as_csv: Whether to write CSV. If false, write JSON Lines.
    """
    return table_lines([dict(row) | _outcome(result) for row, result in zip(rows, results, strict=True)], as_csv=as_csv)


def classified_lines(
    rows: Sequence[Mapping[str, Any]], results: Sequence[Classified | None], *, as_csv: bool
) -> Iterable[str]:
    """Return the lines of a table that contains each input row and its predicted label.

    Each row gets the columns label, probability, novelty and unlike. If the table already has a column with this name,
    the new column has the prefix `predicted_`.

    Args:
        rows: Rows of the input table.
        results: Classification of each row, or None if the row has no text.
        as_csv: Whether to write CSV. If false, write JSON Lines.
    """
    taken = {column for row in rows for column in row}

    def cells(result: Classified | None) -> dict[str, Any]:
        new = {"label": None, "error": NO_TEXT} if result is None else result.to_cells(nested=not as_csv)
        return {f"predicted_{name}" if name in taken else name: value for name, value in new.items()}

    return table_lines([dict(row) | cells(result) for row, result in zip(rows, results, strict=True)], as_csv=as_csv)


def table_lines(rows: Sequence[Mapping[str, Any]], *, as_csv: bool) -> Iterator[str]:
    """Yield the lines of a table as JSON Lines, or as CSV with a header that contains the columns of all rows.

    Args:
        rows: Rows of the table.
        as_csv: Whether to write CSV. If false, write JSON Lines.
    """
    if not as_csv:
        yield from (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        return
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for cells in [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        yield line.getvalue()


def _outcome(result: AppResult | GroundupError) -> dict[str, Any]:
    if isinstance(result, GroundupError):
        return {"output": None, "error": str(result)}
    output = result.text if result.value is None else result.value
    found = {"output": output} | ({"probabilities": result.probabilities} if result.probabilities else {})
    return found | ({} if result.novelty is None else {"novelty": result.novelty, "unlike": result.unlike})


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    # The quote prevents CSV injection. A spreadsheet would otherwise evaluate the text as a formula.
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def result_json(result: AppResult) -> str:
    """Return the result of an application as a line of JSON.

    Args:
        result: Result to convert.
    """
    return json.dumps(asdict(result), ensure_ascii=False) + "\n"
