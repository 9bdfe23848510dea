"""Quotes in CSV: multi-line cells stay intact, and a text quote does not lose rows."""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup.core.errors import DataError
from groundup.corpus.formats import Record, Unreadable, read_records
from groundup.corpus.formats.quotes import Unclosed, quoted_rows
from groundup.corpus.sources import Item
from groundup.data import read_table


def found_in(data: str, name: str = "a.csv") -> list[Record | Unreadable]:
    return list(read_records(Item(name, len(data)), lambda: io.BytesIO(data.encode()), None, None))


def read(data: str, name: str = "a.csv") -> list[list[str | None]]:
    """Return the cells of each row of a fully readable table."""
    found = found_in(data, name)
    assert [each for each in found if isinstance(each, Unreadable)] == []
    return [list(each.value.values()) for each in found if isinstance(each, Record)]


def written(rows: list[list[str]], delimiter: str = ",", end: str = "\n") -> str:
    """Write rows with Python's csv module, which quotes cells if needed."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, lineterminator=end).writerows(rows)
    return buffer.getvalue()


def rows_of(count: int) -> list[list[str]]:
    return [[f"please help me with number {n}", ("pos", "neg", "neutral")[n % 3]] for n in range(count)]


def with_stray(rows: list[list[str]], at: int, delimiter: str = ",", end: str = "\n") -> str:
    """Return a table in which one row starts with a text quote."""
    lines = [written([row], delimiter, end) for row in [["text", "label"], *rows]]
    lines[at + 1] = '"' + lines[at + 1]
    return "".join(lines)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "|"), ("a.tsv", "\t")])
@pytest.mark.parametrize("at", [0, 500, 998, 999])
def test_a_text_quote_loses_no_rows(name: str, delimiter: str, at: int, end: str) -> None:
    """All rows up to the end of the file silently became one cell."""
    rows = rows_of(1000)
    data = with_stray(rows, at, delimiter, end)
    rows[at][0] = '"' + rows[at][0]
    assert read(data, name) == rows


@pytest.mark.parametrize("behind", [1, 2, 5, 300])
def test_a_text_quote_before_quoted_rows(behind: int) -> None:
    """The cell ended at the next quoted cell, and hundreds of rows between them were lost."""
    rows = rows_of(1000)
    rows[500 + behind][0] = "Well, yes"
    rows[700][0] = 'two\nlines, and a "word"'
    rows[800][0] = ""
    data = with_stray(rows, 500)
    rows[500][0] = '"' + rows[500][0]
    assert read(data) == rows


def test_a_text_quote_before_a_multi_line_cell() -> None:
    rows = rows_of(1000)
    rows[600][0] = "one line\nand another, a longer one\n\nand the end"
    data = with_stray(rows, 500)
    rows[500][0] = '"' + rows[500][0]
    assert read(data) == rows


def test_many_text_quotes() -> None:
    rows = rows_of(1000)
    lines = [written([row]) for row in rows]
    for at in (3, 4, 100, 101, 700, 999):
        lines[at] = '"' + lines[at]
        rows[at][0] = '"' + rows[at][0]
    assert read("text,label\n" + "".join(lines)) == rows


def test_a_text_quote_in_the_last_cell_and_after_a_quoted_one() -> None:
    data = 'text,why,label\n"a, b","c,pos\n' + "".join(f"x{n},y{n},neg\n" for n in range(30))
    assert read(data)[:2] == [["a, b", '"c', "pos"], ["x0", "y0", "neg"]]
    data = 'text,label\nyes,"pos\n' + "".join(f"x{n},neg\n" for n in range(30))
    assert read(data)[:2] == [["yes", '"pos'], ["x0", "neg"]]


def test_a_text_quote_in_a_row_with_a_comma_loses_only_that_row() -> None:
    lines = [",".join(row) for row in rows_of(100)]
    lines[50] = '"Yes, I said,pos'
    found = found_in("\n".join(["text,label", *lines]))
    assert [(at, each.reason) for at, each in enumerate(found) if isinstance(each, Unreadable)] == [
        (50, "row with more cells than columns")
    ]
    assert len(found) == 100


def test_a_text_quote_in_a_table_without_header() -> None:
    """The resulting row had a different length, so the table was read as one column."""
    for at in (0, 20):
        lines = [",".join(row) for row in rows_of(200)]
        lines[at] = '"' + lines[at]
        found = read("\n".join(lines))
        assert len(found) == 200
        assert found[at] == ['"please help me with number ' + str(at), rows_of(200)[at][1]]


def test_two_text_quotes_that_look_like_one_cell() -> None:
    """Sentences of a speech in separate rows are recognized by the labels between them."""
    speech = ['"I came', "He left", "She stayed", 'And I went."']
    lines = ["text,label", *(",".join(row) for row in rows_of(30)), *(f"{text},pos" for text in speech)]
    lines += [",".join(row) for row in rows_of(30)]
    assert read("\n".join(lines)) == [*rows_of(30), *([text, "pos"] for text in speech), *rows_of(30)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "cell",
    [
        "two\nlines",
        "Dear Sir,\nI am well, thank you.\n\nYours, truly,\nA. Friend",
        "one, two\nthree, four\nfive, six",
        "\n".join(f"a verse of a song, line {n}" for n in range(40)),
        "\n".join(f"a line of a poem {n}," for n in range(40)),
        "\n".join(f'    "name_{n}",' for n in range(40)),  # as in source code
        "Here is the table:\n" + "\n".join(f"{n},{n * n}" for n in range(40)) + "\nThat is all, my friend.",
        "Here is the table:\n" + "\n".join(f"{n},{n * n}" for n in range(40)),
        "a;b\nc;d\ne;f\ng;h",
        "a\tb\nc\td\ne\tf\ng\th",
        'he said "no, no"\nand "yes, yes"\n"all, of it"',
    ],
)
def test_quoted_multi_line_cells_stay_intact(cell: str, delimiter: str, end: str) -> None:
    rows = rows_of(200)
    rows[0][0] = rows[120][0] = rows[121][0] = rows[199][0] = cell
    for cells in (rows, [row[::-1] for row in rows], [["1", *row] for row in rows], [[row[0], row[0]] for row in rows]):
        names = [f"name {chr(97 + n)}" for n in range(len(cells[0]))]
        assert read(written([names, *cells], delimiter, end), "a.tsv" if delimiter == "\t" else "a.csv") == cells


def test_a_book_in_a_cell_stays_intact() -> None:
    """The cell is longer than the lookahead, and the file is longer than its head."""
    book = "\n".join(f"It was line {n} of the book, and so on" + "," * (n % 3) for n in range(20_000))
    rows = [["a title", book], ["another", "short, \nthis one"], ["third", book + "\n"]]
    data = written([["title", "text"], *rows])
    assert len(data) > 1 << 20
    assert read(data) == rows


def test_a_file_that_ends_inside_a_cell_is_reported(tmp_path: Path) -> None:
    """The truncated row was kept like any other row."""
    rows = "".join(",".join(row) + "\n" for row in rows_of(30))
    data = f'text,label\n"fine, and\nwell",pos\n{rows}"Dear Sir,\nthis is a letter, and it has\nmany lines, and then'
    *whole, last = found_in(data)
    assert len(whole) == 31
    assert last == Unreadable("a.csv:34", "cell with an opening quote but no closing quote", '"Dear Sir,')
    (tmp_path / "t.csv").write_text(data, encoding="utf-8")
    with pytest.raises(DataError, match=r"t\.csv:34: cell with an opening quote but no closing quote"):
        read_table(tmp_path / "t.csv")


def test_the_reported_quote_is_the_unclosed_one() -> None:
    last = list(quoted_rows(io.StringIO('a,b\n"x\ny","z\n\nmore\n'), ",", width=2))[-1]
    assert last == Unclosed(3, 'y","z\n', ["x\ny", "z\n\nmore\n"])


def test_an_unclosed_quote_in_a_single_column_is_reported() -> None:
    assert isinstance(found_in('text\n"Yes, he said\nNo.\n')[-1], Unreadable)


def test_a_cell_over_the_limit_reports_its_line() -> None:
    limit = csv.field_size_limit(10_000)
    try:
        with pytest.raises(csv.Error, match="line 2: field larger"):
            list(quoted_rows(itertools.chain(["a\n", '"b\n'], itertools.repeat("some text\n")), ",", width=1))
    finally:
        csv.field_size_limit(limit)


def test_the_lookahead_is_bounded() -> None:
    """Only a bounded number of lines after a text quote is read before the first row is returned."""
    given = 0

    def lines() -> Iterator[str]:
        nonlocal given
        for given in itertools.count():
            yield f"{chr(34) if given == 3 else ''}some text {given},label\n"

    rows = quoted_rows(lines(), ",", width=2)
    assert next(itertools.islice(rows, 3, None)) == ['"some text 3', "label"]
    assert given < 2_000
    assert next(itertools.islice(rows, 5_000, None)) == ["some text 5004", "label"]
    assert given < 6_100


def test_time_is_linear_in_the_number_of_lines() -> None:
    """Reading the rest again after each text quote would take quadratic time."""

    def seconds(count: int) -> float:
        lines = [f"{chr(34) if n % 900 == 0 else ''}some text {n},label\n" for n in range(count)]
        began = time.process_time()
        assert sum(1 for _ in quoted_rows(lines, ",", width=2)) == count
        return time.process_time() - began

    seconds(1_000)
    assert seconds(100_000) < 100 * seconds(5_000)
