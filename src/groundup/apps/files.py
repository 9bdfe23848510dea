"""What applications work on: a file, a text or standard input; and how their results are written."""

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
_LONGEST_NAME = 240  # of a file; what is longer is a text


def read_input(given: str) -> str:
    """The text that FILE, TEXT or "-" means; of a file all that is in it, in any format that sources may have.

    Raises:
        DataError: it looks like the name of a file, and there is none; or there is no text in it.
    """
    if given == STANDARD_INPUT:
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace").read()
    path = expand_home(Path(given)) if 0 < len(given) <= _LONGEST_NAME and "\n" not in given else None
    if path is not None and path.exists():
        return "\n\n".join(iter_texts(path, "an application works on text"))
    if path is not None and path.suffix[1:].isalnum() and not any(c.isspace() for c in given):
        raise DataError(
            f"{given}: no such file",
            rule="FILE is there; anything else is taken as the text itself",
            fix="Check the name. To give it as a text, put a space behind it.",
        )
    return given


def batch_result_lines(
    rows: Sequence[Mapping[str, Any]], results: Sequence[AppResult | GroundupError], *, as_csv: bool
) -> Iterable[str]:
    """Lines: each row of the table with `output`, and of labels the probabilities; or with `error`."""
    return table_lines([dict(row) | _outcome(result) for row, result in zip(rows, results, strict=True)], as_csv=as_csv)


def classified_lines(
    rows: Sequence[Mapping[str, Any]], results: Sequence[Classified | None], *, as_csv: bool
) -> Iterable[str]:
    """Return lines: each row of the table with the columns label, probability, novelty and unlike.

    A new column whose name is taken gets the prefix `predicted_`.

    Args:
        results: None for a row without text.
    """
    taken = {column for row in rows for column in row}

    def cells(result: Classified | None) -> dict[str, Any]:
        new = {"label": None, "error": NO_TEXT} if result is None else result.to_cells(nested=not as_csv)
        return {f"predicted_{name}" if name in taken else name: value for name, value in new.items()}

    return table_lines([dict(row) | cells(result) for row, result in zip(rows, results, strict=True)], as_csv=as_csv)


def table_lines(rows: Sequence[Mapping[str, Any]], *, as_csv: bool) -> Iterator[str]:
    """The lines of a table: JSON lines, or CSV with a heading and all columns that some row has."""
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
    # What a table program would take for a formula, a model or a stranger must not be able to write.
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def result_json(result: AppResult) -> str:
    """One JSON object."""
    return json.dumps(asdict(result), ensure_ascii=False) + "\n"
