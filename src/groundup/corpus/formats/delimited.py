"""CSV and TSV as people write them: found out are delimiter, quotes, whether there is a header, and lone columns."""

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

_SAMPLE = 100  # rows that decide whether there are columns, and of what numbers
_MANY = 5_000  # rows in which a value of the first one is looked for: of 77 intents 100 rows hold few twice
_HEADER_CHARACTERS = 200
_SENTENCE = re.compile(r"(?:\S+\s+){3,}\S*[.!…][\"'”’)]?\s*")
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table of delimited cells is written.

    Attributes:
        columns: their names: the header's, each made one of its own (see `column_names`), else column_1, column_2, ...
        has_header: whether the first row is the header.
        quoted: whether a cell that begins with a quote ends with one, and may hold delimiters and lines.
        spaced: whether a blank behind a delimiter is usual.
    """

    delimiter: str
    columns: tuple[str, ...]
    has_header: bool
    quoted: bool
    spaced: bool = False

    def rows(self, lines: Iterable[str]) -> Iterator[dict[str, str | None] | str | Unclosed]:
        """Each row below the header by column (None where it is too short), or as it stands if it has cells too many.

        In a table of one column a delimiter is a part of the text: of "text" and "Well, yes" the row is "Well, yes".
        A lone quote is a part of the text where `quoted_rows` can tell that; else the last is an `Unclosed`.
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
    """Find out the layout of the table that begins with `head`; `whole` says that it ends there, too."""
    delimiter = max(delimiters, key=head.split("\n", 1)[0].count)
    # Tab-separated values have no quotes by their own standard, but pandas writes them all the same.
    quoted = delimiter != "\t" or _quotes_close(head, whole=whole)
    rows = list[list[str]]()
    for row in itertools.islice(_rows(io.StringIO(head, ""), delimiter, quoted), _MANY):
        if not isinstance(row, Unclosed):
            rows.append(row)
        elif not rows:
            rows.append(row.cells)
    if len(rows) > 1 and len(rows) < _MANY and not whole:  # the last one is cut off
        rows.pop()
    if not rows:
        return Layout(delimiter, (), False, quoted)
    sample = rows[:_SAMPLE]
    spaced = sum(any(cell[:1] == " " for cell in row[1:]) for row in sample) * 10 > len(sample)
    even = len({len(row) for row in sample}) == 1  # else perhaps lines of prose with some commas in them
    prose = not even and _SENTENCE.fullmatch(delimiter.join(rows[0])) is not None
    has_header = not prose and _is_header(rows[0], rows[1:])
    names = rows[0] if has_header else [""] * (len(rows[0]) if even else 1)
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
    """Whether quotes at the beginning of a cell are there for the table, not for the text."""
    reader = csv.reader(io.StringIO(head, ""), delimiter="\t", strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error:
        return not whole and reader.line_num >= head.count("\n")  # the head ends inside a cell
    return True


def _is_header(first: Sequence[str], rest: Sequence[Sequence[str]]) -> bool:
    """Whether a first row names columns: not if a cell is a sentence, or one value more of its column."""
    if [cell.strip() for cell in first] == [str(number) for number in range(len(first))]:  # pandas without names
        return True
    if any(len(cell) > _HEADER_CHARACTERS or _SENTENCE.fullmatch(cell) for cell in first):
        return False
    columns = [[row[at] for row in rest if at < len(row) and row[at].strip()] for at in range(len(first))]
    return not any(cell.strip() and _belongs(cell, values) for cell, values in zip(first, columns, strict=True))


def _belongs(cell: str, values: Sequence[str]) -> bool:
    few = values[: _SAMPLE - 1]
    if _NUMBER.fullmatch(cell):
        numbers = [float(value) for value in few if _NUMBER.fullmatch(value)]
        alike = bool(numbers) and len(numbers) == len(few)
        return alike and min(numbers) - 1 <= float(cell) <= max(numbers) + 1
    if few.count(cell) >= max(2, len(few) / 10):
        return True
    # One of dozens of labels. A name of a column may be found in it, too, but once by chance, or far less often than
    # labels are (as in files that were joined with their headers); and in a column of texts that says nothing.
    counts = Counter(values)
    usual = len(values) / max(1, len(counts))
    return usual >= 1.5 and counts[cell] >= max(2, usual / 10)
