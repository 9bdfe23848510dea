"""Read CSV rows with quoted cells, even if some quotes are part of the text."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from groundup.corpus.streams import MAX_LINE_BYTES

_MAX_LOOKAHEAD = 1_000  # maximum number of lines to buffer after an opening quote
_MIN_ROW_LINES = 10  # if the first line has too few cells, a quote is text only if this many lines look like rows
_MIN_LINES = 3  # if the closing quote is plausible, a quote is text only if this many lines look like rows

# Number of previous rows to compare with, and maximum size of such a row.
_HISTORY, _MAX_HISTORY_CHARACTERS = 100, 1_000
_LONE_QUOTE = re.compile('(?<!")"(?:"")*(?!")')


@dataclass(frozen=True, slots=True)
class Unclosed:
    """A quote that opens a cell but is never closed.

    Attributes:
        line: Line number of the quote, starting at 1.
        text: The line that contains the quote.
        cells: Cells of the row. The last cell contains the rest of the file.
    """

    line: int
    text: str
    cells: list[str]


def quoted_rows(
    lines: Iterable[str], delimiter: str, *, width: int | None, spaced: bool = False
) -> Iterator[list[str] | Unclosed]:
    """Yield the cells of each row without enclosing quotes. Quotes that do not enclose a cell are kept as text.

    In CSV, a cell that starts with a quote extends to the next quote and may contain several lines. If the lines inside
    the cell look like rows, the opening quote is treated as text and the lines are treated as rows. A line looks like a
    row if it has `width` cells when quotes are ignored, and if no cell has "" inside. Because the delimiters "," and
    ";" also occur in prose, a line with such a delimiter must not have cells that start with a space.

    The opening quote is treated as text in two cases:

    - The closing quote is missing or implausible, and nine of ten non-empty lines, including the line of the closing
      quote, look like rows. A closing quote is implausible if text follows the quote or if the row would have the wrong
      number of cells. The first line must also have enough cells, unless ten other lines look like rows.
    - The closing quote is plausible, all lines look like rows, and at least three lines follow the first line. There
      must also be a column in which the value of every line, such as a label, occurs in the previous 100 rows.
      Otherwise, the cell is a text that contains a table.

    Memory and time are bounded, because at most 1,000 lines, or the maximum cell size of the csv module, are read
    ahead.

    The method has known limitations. A cell with 1,000 lines that look like rows is split into rows. If two quotes are
    text but look like the quotes around one cell, and if no column has labels, the rows between the quotes are lost. If
    a quote is text, the rows after this quote are also lost if the row of the quote has several lines or if the table
    has only one column.

    Args:
        lines: The lines of the file.
        delimiter: The delimiter.
        width: Number of columns, or None to use the number of cells in the first row.
        spaced: Whether delimiters are usually followed by a space in this table.

    Yields:
        The cells of each row (an empty list for an empty line), or an `Unclosed` for a quote that is never closed.

    Raises:
        csv.Error: A cell exceeds the maximum field size of the csv module. The message contains the line number.
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
    """Iterator that passes the lines of a file to `csv.reader`.

    If the opening quote of a cell is text, the iterator raises `StopIteration` to end the row early. After that, the
    iterator returns the lines inside this cell again, and `csv.reader` reads these lines as rows.

    Attributes:
        width: Number of columns, if it is known.
        history: Previous rows.
        first: First line of the row.
        size: Number of characters in the other lines of the row that were checked.
        opened: Line number of the quote that opened the current cell.
        opening: Text of the line that contains this quote.
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
        """Reset the state before reading a new row."""
        self.first = self.opening = ""
        self.is_text_quote = self.has_ended = self._has_begun = False
        # Lines after the first line, or None if the opening quote was already checked.
        self._buffer: list[str] | None = []
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
        if end is not None:  # the current cell ends in this line, but the row may continue with another cell
            self.opened, self.opening = self._number, line
        return line

    def _check_quote(self, buffer: list[str], end: int | None) -> None:
        """Check whether the opening quote in the first line is text. `end` is the position after the closing quote."""
        width = self.width or sum(map(len, _at_last_quote(self.first, self._delimiter)))
        nonempty = [line for line in buffer if not line.isspace()]
        inner = [self._split(line) for line in (nonempty if end is None else nonempty[:-1])]
        misses = sum(not self._looks_like_row(cells, width) for cells in inner)
        # This fast check is sufficient for almost all cells with several lines.
        if width < 2 or misses * 10 > len(nonempty):
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
        """Return whether a column exists in which every row of `rows` repeats a value of an earlier row."""
        columns = ({row[at] for row in self.history if at < len(row) and row[at].strip()} for at in range(width))
        return any(all(row[at] in column for row in rows) for at, column in enumerate(columns))

    def _begins_row(self, line: str, width: int) -> bool:
        """Return whether a line with quotes looks like a row or like the first line of a row."""
        cells, *others = csv.reader([line, ""], delimiter=self._delimiter)
        return self._fits_tightly(cells, width) if others else len(cells) <= width

    def _ends_cell(self, line: str, end: int, width: int) -> bool:
        """Return whether the quote before `end` ends a cell, and the row has `width` cells from this cell on."""
        if line[end : end + 1] not in ("", "\r", "\n", self._delimiter):
            return False
        cells, *others = csv.reader(['"' + line, ""], delimiter=self._delimiter)
        return not others or _fits(cells, width)


def _fits(cells: Sequence[str], width: int) -> bool:
    return len(cells) >= width and not any(cell.strip() for cell in cells[width:])


def _lone_quote(line: str) -> int | None:
    """Return the position after the first closing quote of a line, or None if no quote closes the cell.

    A doubled quote ("") does not close a cell.
    """
    found = _LONE_QUOTE.search(line) if '"' in line else None
    return found.end() if found else None


def _at_last_quote(line: str, delimiter: str) -> tuple[list[str], list[str]]:
    """Split a line at the quote that is still open at the end of the line.

    Return the cells before the open quote, and the cells that start with the quote if the quote is text.
    """
    # After the open quote, a line contains only doubled quotes ("").
    *_, last = _LONE_QUOTE.finditer(line)
    at = last.start()
    before = next(csv.reader([line[:at]], delimiter=delimiter))
    return before[:-1], line[at:].rstrip("\r\n").split(delimiter)
