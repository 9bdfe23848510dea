"""Tables as aligned Markdown, which users can read in a terminal and paste into a bug report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from groundup.core.console import visible

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""The names of the columns, and the rows."""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Return a table, or an empty string if there are no rows. Pipes in cells are escaped.

    Args:
        columns: Names of the columns.
        rows: Cells of each row.
        align: Alignment of each column, "l" or "r". Default: the first two columns are left-aligned, and the others are
            right-aligned.
    """
    if not rows:
        return ""
    left = [letter == "l" for letter in align or "ll".ljust(len(columns), "r")[: len(columns)]]
    cells = [[_cell(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[index]) for row in cells)) for index in range(len(columns))]
    rule = ["-" * width if first else "-" * (width - 1) + ":" for width, first in zip(widths, left, strict=True)]
    lines = [cells[0], rule, *cells[1:]]
    return "".join(
        "| "
        + " | ".join(
            cell.ljust(width) if first else cell.rjust(width)
            for cell, width, first in zip(line, widths, left, strict=True)
        )
        + " |\n"
        for line in lines
    )


def _cell(text: str) -> str:
    """Return text on one line, in which a pipe does not end the cell."""
    # Backslashes before a pipe are doubled, because they would escape the backslash that escapes the pipe.
    return re.sub(r"(\\*)\|", r"\1\1\\|", visible(text).replace("\n", " "))
