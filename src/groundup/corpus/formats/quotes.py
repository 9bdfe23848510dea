"""Read CSV rows with quoted cells, where some quotes are part of the text."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from groundup.corpus.streams import MAX_LINE_BYTES

_MAX_LOOKAHEAD = 1_000  # lines to buffer after a quote
_MIN_ROW_LINES = 10  # lines that look like rows, if the first line has too few cells
_MIN_LINES = 3  # lines that look like rows, if the last one also ends a cell
_HISTORY, _MAX_HISTORY_CHARACTERS = 100, 1_000  # number of earlier rows to compare with, and their maximum size
_LONE_QUOTE = re.compile('(?<!")"(?:"")*(?!")')


@dataclass(frozen=True, slots=True)
class Unclosed:
    """A quote that opens a cell and has no end in the file.

    Attributes:
        line: Line number of the quote, from 1.
        text: That line.
        cells: Cells of the row; the last one has the rest of the file.
    """

    line: int
    text: str
    cells: list[str]


def quoted_rows(
    lines: Iterable[str], delimiter: str, *, width: int | None, spaced: bool = False
) -> Iterator[list[str] | Unclosed]:
    """Yield the cells of each row, unquoted. A quote that does not delimit a cell is text.

    In CSV, a cell that starts with a quote extends to the next quote, over any number of lines. If the lines inside
    the cell look like rows, the opening quote is text and the lines are rows. A line looks like a row if it has `width`
    cells when quotes are ignored, and no cell has "" inside. For the delimiters "," and ";", which also occur in
    prose, no cell may start with a space.

    The opening quote is text in two cases.

    - The cell has no end, or an implausible one: text follows the closing quote, or the row has the wrong number of
      cells. Then nine of ten non-empty lines must look like rows, including the line of the closing quote. The first
      line must have enough cells, unless ten other lines look like rows.
    - The cell has a plausible end. Then all lines must look like rows, with at least three after the first line. They
      must also have, in one column, only values from the previous 100 rows, such as labels. Otherwise the cell is a
      text that includes a table.

    The lookahead ends after 1,000 lines or the maximum cell size of csv, so memory and time are bounded.

    Known limitations: a cell with 1,000 lines that look like rows is split into rows. Rows between two text quotes are
    lost if the quotes look like CSV quotes around one cell and no column has labels. Rows are also lost after a text
    quote in a row of several lines, and in a table with one column, where every line looks like a row.

    Args:
        lines: The lines of the file.
        delimiter: The delimiter.
        width: Number of columns; None uses the length of the first row.
        spaced: Whether delimiters are usually followed by a space in this table.

    Yields:
        The cells of each row (an empty list for an empty line), or `Unclosed` for a quote without an end.

    Raises:
        csv.Error: A cell exceeds the maximum size of csv. The message has the line number.
    """
    source = _Lines(lines, delimiter, width, spaced)
    reader = csv.reader(source, delimiter=delimiter)
    while True:
        source.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise csv.Error(f"line {source.opened}: {error}") from None
        if source.has_ended and not source.is_text_quote:
            yield Unclosed(source.opened, source.opening, row)
            return
        if source.is_text_quote:
            before, rest = _at_last_quote(source.first, delimiter)
            row = before + rest
        source.width = source.width or len(row)
        if len(source.first) + source.size < _MAX_HISTORY_CHARACTERS:
            source.history.append(row)
        yield row


class _Lines:
    """The lines for csv.reader. After a text quote it raises `StopIteration` to end the row early.

    For the next row, csv.reader then receives the lines that it had read into the cell.

    Attributes:
        width: Number of columns, if it is known.
        history: Previous rows.
        first: First line of the row.
        size: Number of characters in its other lines, as far as they were checked.
        opened: Line number of the quote that opened the current cell.
        opening: Text of that line.
        is_text_quote: Whether the row ended because the quote in its first line is text.
        has_ended: Whether the file ended inside the row.
    """

    def __init__(self, lines: Iterable[str], delimiter: str, width: int | None, spaced: bool) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self._number = 0
        self._delimiter = delimiter
        self._tight = delimiter in ",;" and not spaced
        self.width = width
        self.history: deque[list[str]] = deque(maxlen=_HISTORY)
        self.opened = 0
        self.begin_row()

    def begin_row(self) -> None:
        """Reset the state for a new row."""
        self.first = self.opening = ""
        self.is_text_quote = self.has_ended = self._has_begun = False
        self._buffer: list[str] | None = []  # lines in the cell that the first line opened; None after the check
        self.size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.has_ended = self._has_begun
            if self._buffer is not None and self._has_begun:
                self._check_quote(self._buffer, None)
            raise StopIteration
        self._number += 1
        if not self._has_begun:
            self._has_begun = True
            self.first = self.opening = line
            self.opened = self._number
            return line
        end = _lone_quote(line)
        if self._buffer is not None:
            self._buffer.append(line)
            self.size += len(line)
            if end is not None or len(self._buffer) == _MAX_LOOKAHEAD or self.size > MAX_LINE_BYTES:
                self._check_quote(self._buffer, end)
                if self.is_text_quote:
                    raise StopIteration
                self._buffer = None
        if end is not None:  # the cell ends here; the row may continue with another cell
            self.opened, self.opening = self._number, line
        return line

    def _check_quote(self, buffer: list[str], end: int | None) -> None:
        """Check whether the quote in the first line is text. `end` is the position after its closing quote."""
        width = self.width or sum(map(len, _at_last_quote(self.first, self._delimiter)))
        nonempty = [line for line in buffer if not line.isspace()]
        inner = [self._split(line) for line in (nonempty if end is None else nonempty[:-1])]
        misses = sum(not self._looks_like_row(cells, width) for cells in inner)
        if width < 2 or misses * 10 > len(nonempty):  # true for almost all multi-line cells, and fast
            return
        before, rest = _at_last_quote(self.first, self._delimiter)
        is_whole = _fits(before + rest, width)
        if end is not None:
            misses += not self._begins_row(nonempty[-1], width)
        if end is not None and self._ends_cell(nonempty[-1], end, width - len(before)):
            is_text = is_whole and not misses and len(buffer) == len(nonempty) >= _MIN_LINES
            is_text = is_text and self._has_known_labels([*inner, self._split(nonempty[-1])], width)
        else:
            is_whole = is_whole or (bool(nonempty) and len(before) + len(rest) > width)
            is_text = misses * 10 <= len(nonempty) and (is_whole or len(nonempty) >= _MIN_ROW_LINES)
        if is_text:
            self.is_text_quote = True
            self._number -= len(buffer)
            self._again.extendleft(reversed(buffer))

    def _split(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self._delimiter)

    def _looks_like_row(self, cells: Sequence[str], width: int) -> bool:
        return self._fits_tightly(cells, width) and not any('""' in cell and cell != '""' for cell in cells)

    def _fits_tightly(self, cells: Sequence[str], width: int) -> bool:
        return _fits(cells, width) and not (self._tight and any(cell[:1] == " " for cell in cells[1:]))

    def _has_known_labels(self, rows: Sequence[Sequence[str]], width: int) -> bool:
        """Return whether in one column all rows have values of previous rows."""
        columns = ({row[at] for row in self.history if at < len(row) and row[at].strip()} for at in range(width))
        return any(all(row[at] in column for row in rows) for at, column in enumerate(columns))

    def _begins_row(self, line: str, width: int) -> bool:
        """Return whether a line with quotes looks like a row, or like the first line of one."""
        cells, *others = csv.reader([line, ""], delimiter=self._delimiter)
        return self._fits_tightly(cells, width) if others else len(cells) <= width

    def _ends_cell(self, line: str, end: int, width: int) -> bool:
        """Return whether the quote before `end` ends a cell, with `width` cells from it to the end of the row."""
        if line[end : end + 1] not in ("", "\r", "\n", self._delimiter):
            return False
        cells, *others = csv.reader(['"' + line, ""], delimiter=self._delimiter)
        return not others or _fits(cells, width)


def _fits(cells: Sequence[str], width: int) -> bool:
    return len(cells) >= width and not any(cell.strip() for cell in cells[width:])


def _lone_quote(line: str) -> int | None:
    """Return the position after the first closing quote, skipping ""; None if the line has none."""
    found = _LONE_QUOTE.search(line) if '"' in line else None
    return found.end() if found else None


def _at_last_quote(line: str, delimiter: str) -> tuple[list[str], list[str]]:
    """Return the cells before the quote that is open at the end of a line, and the cells from it if it is text."""
    # Any later quotes are doubled.
    *_, last = _LONE_QUOTE.finditer(line)
    at = last.start()
    before = next(csv.reader([line[:at]], delimiter=delimiter))
    return before[:-1], line[at:].rstrip("\r\n").split(delimiter)
