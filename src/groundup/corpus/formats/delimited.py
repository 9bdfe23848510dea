"""Detect the layout of CSV and TSV files: the delimiter, the quoting, the header, and whether there is one column."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from groundup.corpus.formats.base import column_names
from groundup.corpus.formats.quotes import Unclosed, quoted_rows

_SAMPLE = 100  # number of rows from which the columns and their types are detected

# Number of rows to compare the header with. 100 rows are not enough: if a column has 77 different labels, a label often
# occurs only once in 100 rows.
_MAX_ROWS = 5_000
_HEADER_CHARACTERS = 200
_SENTENCE = re.compile(r"(?:\S+\s+){3,}\S*[.!…][\"'”’)]?\s*")
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a table in a text file.

    Attributes:
        delimiter: The delimiter.
        columns: Unique column names from the header (see `column_names`). If the table has no header, the names are
            column_1, column_2, and so on.
        has_header: Whether the first row is the header.
        quoted: Whether a cell may be enclosed in quotes. A quoted cell may contain delimiters and line breaks.
        spaced: Whether delimiters are usually followed by a space.
    """

    delimiter: str
    columns: tuple[str, ...]
    has_header: bool
    quoted: bool
    spaced: bool = False

    def rows(self, lines: Iterable[str]) -> Iterator[dict[str, str | None] | str | Unclosed]:
        """Yield the rows below the header.

        In a table with one column, a delimiter is part of the text. For example, "Well, yes" is one cell.

        Args:
            lines: The lines of the file.

        Yields:
            A dict for each row, keyed by column name. Missing cells are None. If a row has too many cells, the text of
            the row is yielded instead. If a quote is never closed, an `Unclosed` is yielded (see `quoted_rows`).
        """
        is_header = self.has_header
        for row in _rows(lines, self.delimiter, self.quoted, width=len(self.columns), spaced=self.spaced):
            if isinstance(row, Unclosed):
                yield row
                continue
            if is_header:
                is_header = False
                continue
            cells = [self.delimiter.join(row)] if len(self.columns) == 1 else row
            if any(cell.strip() for cell in cells[len(self.columns) :]):
                yield self.delimiter.join(row)
            else:
                yield dict(itertools.zip_longest(self.columns, cells[: len(self.columns)]))


def find_layout(head: str, delimiters: str, *, whole: bool) -> Layout:
    """Detect the layout of a table.

    Args:
        head: Beginning of the file.
        delimiters: Characters that may be the delimiter.
        whole: Whether `head` is the whole file.
    """
    delimiter = max(delimiters, key=head.split("\n", 1)[0].count)
    # The TSV standard has no quotes, but pandas writes them.
    quoted = delimiter != "\t" or _quotes_close(head, whole=whole)
    rows = list[list[str]]()
    for row in itertools.islice(_rows(io.StringIO(head, ""), delimiter, quoted), _MAX_ROWS):
        if not isinstance(row, Unclosed):
            rows.append(row)
        elif not rows:
            rows.append(row.cells)
    if len(rows) > 1 and len(rows) < _MAX_ROWS and not whole:  # the last row may be truncated
        rows.pop()
    if not rows:
        return Layout(delimiter, (), False, quoted)
    sample = rows[:_SAMPLE]
    spaced = sum(any(cell[:1] == " " for cell in row[1:]) for row in sample) * 10 > len(sample)
    regular = len({len(row) for row in sample}) == 1  # rows of different lengths may be prose with commas
    prose = not regular and _SENTENCE.fullmatch(delimiter.join(rows[0])) is not None
    has_header = not prose and _is_header(rows[0], rows[1:])
    names = rows[0] if has_header else [""] * (len(rows[0]) if regular else 1)
    return Layout(delimiter, column_names(names), has_header, quoted, spaced)


def _rows(
    lines: Iterable[str], delimiter: str, quoted: bool, *, width: int | None = None, spaced: bool = False
) -> Iterator[list[str] | Unclosed]:
    rows: Iterable[list[str] | Unclosed] = (
        quoted_rows(lines, delimiter, width=width, spaced=spaced)
        if quoted
        else csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    )
    return (row for row in rows if row)


def _quotes_close(head: str, *, whole: bool) -> bool:
    """Return whether the quotes at the start of cells enclose these cells.

    Otherwise, the quotes are part of the text.
    """
    reader = csv.reader(io.StringIO(head, ""), delimiter="\t", strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error:
        return not whole and reader.line_num >= head.count("\n")  # the head ends inside a quoted cell
    return True


def _is_header(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row is a header: no cell is a sentence or a plausible value for its column."""
    # pandas writes the numbers 0, 1, 2 and so on as default column names.
    if [cell.strip() for cell in first] == [str(number) for number in range(len(first))]:
        return True
    if any(len(cell) > _HEADER_CHARACTERS or _SENTENCE.fullmatch(cell) for cell in first):
        return False
    columns = [[row[at] for row in rest if at < len(row) and row[at].strip()] for at in range(len(first))]
    return not any(
        cell.strip() and _is_plausible_value(cell, values) for cell, values in zip(first, columns, strict=True)
    )


def _is_plausible_value(cell: str, values: Sequence[str]) -> bool:
    sample = values[: _SAMPLE - 1]
    if _NUMBER.fullmatch(cell):
        numbers = [float(value) for value in sample if _NUMBER.fullmatch(value)]
        all_numbers = bool(numbers) and len(numbers) == len(sample)
        return all_numbers and min(numbers) - 1 <= float(cell) <= max(numbers) + 1
    if sample.count(cell) >= max(2, len(sample) / 10):
        return True
    # A cell of the first row is a label, and not a column name, if the rows below repeat the same few labels and the
    # cell is one of these labels.
    # A column name may also occur among the values, but less often than a label, for example if files with headers were
    # concatenated. A column of texts does not consist of labels, even if a few texts are repeated.
    counts = Counter(values)
    mean_count = len(values) / max(1, len(counts))
    return mean_count >= 1.5 and counts[cell] >= max(2, mean_count / 10)
