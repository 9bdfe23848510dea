"""Rows of CSV whose cells may be quoted, though a quote is now and then only a part of the text."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from groundup.corpus.streams import MAX_LINE_BYTES

_FARTHEST = 1_000  # lines that are kept behind a quote: 10 GB cannot be kept until it closes
_NO_CHANCE = 10  # so many lines that look like rows are some, whatever the first one looks like
_FEWEST = 3  # lines that are taken for rows though they end as a cell does
_BEFORE, _SHORT = 100, 1_000  # rows that are kept to compare with, each of fewer characters than that
_LONE_QUOTE = re.compile('(?<!")"(?:"")*(?!")')


@dataclass(frozen=True, slots=True)
class Unclosed:
    """A quote that opened a cell whose end the file does not hold, and that may well be one of the table.

    Attributes:
        line: its line in the file, counted from 1.
        text: that line.
        cells: of its row, the last with all that follows.
    """

    line: int
    text: str
    cells: list[str]


def quoted_rows(
    lines: Iterable[str], delimiter: str, *, width: int | None, spaced: bool = False
) -> Iterator[list[str] | Unclosed]:
    """The cells of each row (none of an empty line), without the quotes around them; a lone quote is text.

    A cell that begins with a quote goes on to the next quote, over lines and rows, wherever that is. Where the lines
    that it swallowed look like rows, the quote is taken as a character of the text, and the lines as rows. A line looks
    like a row if it has exactly `width` cells where no quote counts, no "" inside of them, and, where the delimiter is
    one of prose (, ;), no blank behind it. How many have to:

    - The cell never ends, or ends as none does: there is more text behind the quote, so that this one rather begins
      the next cell, or the row gets too few or too many cells. Nine of ten, the line of the second quote among them,
      empty ones aside; and the line of the first one has no cells too few, unless ten others are there to tell.
    - The cell ends as cells do. Every line, the first and the last, three or more behind the first; and in one column
      all of these have cells that were in the hundred rows before, as labels are. Else it is a text with a table in it.

    After 1,000 lines (or as many characters as csv allows for a cell) the cell counts as one that never ends. So memory
    is bounded, and no line is read more than a few times.

    It errs where a cell holds a thousand lines of a table that has as many columns, or some with the same labels, and
    begins and ends to fit. It leaves rows lost between two lone quotes that look like those of one cell, without
    labels to tell; behind a lone quote in a row that already spans lines; and in a table of one column, where every
    line looks like a row.

    Args:
        width: the number of columns; None: what the first row has.
        spaced: whether a blank behind a delimiter is usual in this table, and tells nothing.

    Raises:
        csv.Error: a cell longer than csv allows; it names the line.
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
        if source.has_ended and not source.is_stray:
            yield Unclosed(source.opened, source.opening, row)
            return
        if source.is_stray:
            before, rest = _at_last_quote(source.first, delimiter)
            row = before + rest
        source.width = source.width or len(row)
        if len(source.first) + source.size < _SHORT:
            source.before.append(row)
        yield row


class _Lines:
    """The lines that csv.reader asks for. Behind a lone quote it is told that there are no more.

    That ends its row; when it asks for the next one, it gets the lines that the quote had swallowed.

    Attributes:
        width: the number of columns, when that is known.
        before: the last rows.
        first: the first line of the row.
        size: characters of its other lines, as far as they were judged.
        opened, opening: number and text of the line where the quote opened that the row's last line is inside of.
        is_stray: whether the row ended because that is a lone quote, in its first line.
        has_ended: whether the file ended inside of the row.
    """

    def __init__(self, lines: Iterable[str], delimiter: str, width: int | None, spaced: bool) -> None:
        self._lines = iter(lines)
        self._again: deque[str] = deque()
        self._number = 0
        self._delimiter = delimiter
        self._tight = delimiter in ",;" and not spaced
        self.width = width
        self.before: deque[list[str]] = deque(maxlen=_BEFORE)
        self.opened = 0
        self.begin_row()

    def begin_row(self) -> None:
        """What comes next is the first line of a row."""
        self.first = self.opening = ""
        self.is_stray = self.has_ended = self._has_begun = False
        self._swallowed: list[str] | None = []  # by the cell that the first line opened; None when that is judged
        self.size = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines, None)
        if line is None:
            self.has_ended = self._has_begun
            if self._swallowed is not None and self._has_begun:
                self._judge(self._swallowed, None)
            raise StopIteration
        self._number += 1
        if not self._has_begun:
            self._has_begun = True
            self.first = self.opening = line
            self.opened = self._number
            return line
        end = _lone_quote(line)
        if self._swallowed is not None:
            self._swallowed.append(line)
            self.size += len(line)
            if end is not None or len(self._swallowed) == _FARTHEST or self.size > MAX_LINE_BYTES:
                self._judge(self._swallowed, end)
                if self.is_stray:
                    raise StopIteration
                self._swallowed = None
        if end is not None:  # the cell ends here; if the row goes on, then in another one
            self.opened, self.opening = self._number, line
        return line

    def _judge(self, swallowed: list[str], end: int | None) -> None:
        """Whether the first line's quote is a lone one, if the one before `end` of the last line would be its other."""
        width = self.width or sum(map(len, _at_last_quote(self.first, self._delimiter)))
        given = [line for line in swallowed if not line.isspace()]
        inner = [self._plain(line) for line in (given if end is None else given[:-1])]
        misses = sum(not self._looks_like_row(cells, width) for cells in inner)
        if width < 2 or misses * 10 > len(given):  # so for nearly all that are cells of many lines; the rest takes time
            return
        before, rest = _at_last_quote(self.first, self._delimiter)
        is_whole = _fits(before + rest, width)
        if end is not None:
            misses += not self._begins_row(given[-1], width)
        if end is not None and self._ends_cell(given[-1], end, width - len(before)):
            is_stray = is_whole and not misses and len(swallowed) == len(given) >= _FEWEST
            is_stray = is_stray and self._is_known([*inner, self._plain(given[-1])], width)
        else:
            is_whole = is_whole or (bool(given) and len(before) + len(rest) > width)
            is_stray = misses * 10 <= len(given) and (is_whole or len(given) >= _NO_CHANCE)
        if is_stray:
            self.is_stray = True
            self._number -= len(swallowed)
            self._again.extendleft(reversed(swallowed))

    def _plain(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self._delimiter)

    def _looks_like_row(self, cells: Sequence[str], width: int) -> bool:
        return self._fits_tightly(cells, width) and not any('""' in cell and cell != '""' for cell in cells)

    def _fits_tightly(self, cells: Sequence[str], width: int) -> bool:
        return _fits(cells, width) and not (self._tight and any(cell[:1] == " " for cell in cells[1:]))

    def _is_known(self, rows: Sequence[Sequence[str]], width: int) -> bool:
        """Whether there is a column in which each of these rows has what a row before had."""
        columns = ({row[at] for row in self.before if at < len(row) and row[at].strip()} for at in range(width))
        return any(all(row[at] in column for row in rows) for at, column in enumerate(columns))

    def _begins_row(self, line: str, width: int) -> bool:
        """Whether a line with quotes looks like a row, or like the first of one whose cell has more lines."""
        cells, *others = csv.reader([line, ""], delimiter=self._delimiter)
        return self._fits_tightly(cells, width) if others else len(cells) <= width

    def _ends_cell(self, line: str, end: int, width: int) -> bool:
        """Whether the quote before `end` ends a cell, and what follows has the row's last cells, of `width` with it."""
        if line[end : end + 1] not in ("", "\r", "\n", self._delimiter):
            return False
        cells, *others = csv.reader(['"' + line, ""], delimiter=self._delimiter)
        return not others or _fits(cells, width)


def _fits(cells: Sequence[str], width: int) -> bool:
    return len(cells) >= width and not any(cell.strip() for cell in cells[width:])


def _lone_quote(line: str) -> int | None:
    """Where the first quote ends that closes a cell which the line begins inside of: "" is a quote of the text."""
    found = _LONE_QUOTE.search(line) if '"' in line else None
    return found.end() if found else None


def _at_last_quote(line: str, delimiter: str) -> tuple[list[str], list[str]]:
    """The cells of a line before the quote that is open at its end, and from there on, where that is a character."""
    # All that follows are quotes of the text, two at a time.
    *_, last = _LONE_QUOTE.finditer(line)
    at = last.start()
    before = next(csv.reader([line[:at]], delimiter=delimiter))
    return before[:-1], line[at:].rstrip("\r\n").split(delimiter)
