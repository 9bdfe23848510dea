"""Tables as aligned Markdown, which users can read in a terminal and paste into a bug report."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.core.console import visible

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""The names of the columns, and the rows."""


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, or an empty string if there are no rows. The first two columns are left-aligned.

    Args:
        columns: Names of the columns.
        rows: Cells of each row.
    """
    if not rows:
        return ""
    cells = [[visible(cell).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[index]) for row in cells)) for index in range(len(columns))]
    left = [index < 2 for index in range(len(columns))]
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
