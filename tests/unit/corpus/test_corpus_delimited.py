"""CSV and TSV in practice: no cell is lost or merged with another one without being counted."""

from __future__ import annotations

import csv
import io

import pytest

from groundup.corpus.formats import Record, read_records
from groundup.corpus.formats.delimited import find_layout
from groundup.corpus.sources import Item


def read(data: str, name: str = "a.csv") -> list[dict[str, str | None] | str]:
    """Return the rows of a table, or "reason!" for invalid rows."""
    found = read_records(Item(name, len(data)), lambda: io.BytesIO(data.encode()), None, None)
    return [each.value if isinstance(each, Record) else f"{each.reason}!" for each in found]


def test_commas_in_the_only_column_are_text() -> None:
    """The text after the first comma was silently lost."""
    assert read("text\nWell, yes, I do.\nNo.\n\n") == [{"text": "Well, yes, I do."}, {"text": "No."}]


def test_prose_without_header_is_one_column() -> None:
    prose = ["Well, he said, I do not know what it means.", "No.", "One, two, three; and so on, and on."]
    assert read("\n".join(prose)) == [{"column_1": line} for line in prose]


def test_extra_cells_are_counted() -> None:
    """The extra comma may be anywhere, so part of a sentence could become the label."""
    rows = read("id,text,label\n1,yes,pos\n2,no, really,neg\n3,fine,pos,\n4,short\n")
    assert rows == [
        {"id": "1", "text": "yes", "label": "pos"},
        "row with more cells than columns!",
        {"id": "3", "text": "fine", "label": "pos"},  # trailing delimiters are allowed
        {"id": "4", "text": "short", "label": None},
    ]


def test_text_quotes_in_tsv() -> None:
    """A cell that started with a quote extended to the next quote, so half of the rows were lost."""
    texts = ['"Yes," he said.', "plain", '"No" is a word', "it ended", '"unclosed']
    data = "text\tlabel\n" + "".join(f"{text}\t{n}\n" for n, text in enumerate(texts))
    assert read(data, "a.tsv") == [{"text": text, "label": str(n)} for n, text in enumerate(texts)]


def test_csv_quotes_in_tsv() -> None:
    """pandas also quotes TSV cells, which can then include tabs and line breaks."""
    cells = [["text", "label"], ['a "word"\tand\nlines', "x"], ["plain", "y"]]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter="\t").writerows(cells)
    assert read(buffer.getvalue(), "a.tsv") == [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]
    cut = buffer.getvalue()[: buffer.getvalue().index("and")]  # the sample ends inside such a cell
    assert find_layout(cut, "\t", whole=False).quoted
    assert not find_layout(cut, "\t", whole=True).quoted


@pytest.mark.parametrize(
    "first",
    [
        "text,label",
        "0,1",  # pandas default column names
        "What is your age?,How satisfied are you with our service in general?",
        "country,2019",
        "te{x}t,label",
    ],
)
def test_headers_are_detected(first: str) -> None:
    """Taking a header for a row would lose the column names."""
    rows = [f"A text of some words about {n} things,{n * 1000 + 3}" for n in range(5, 40)]
    found = read("\n".join([first, *rows]))
    assert len(found) == len(rows)
    assert [list(row) for row in found if isinstance(row, dict)] == [first.split(",")] * len(rows)


@pytest.mark.parametrize(
    ("first", "names"),
    [
        (" text , label ", ["text", "label"]),
        (",text", ["column_1", "text"]),  # pandas' index has no name
        ("label,label", ["label", "label_2"]),
        ("text,text,label,label_2,label", ["text", "text_2", "label", "label_2", "label_3"]),
        ("a, ,column_2,", ["a", "column_2_2", "column_2", "column_4"]),
    ],
)
def test_column_names_are_unique(first: str, names: list[str]) -> None:
    """With two columns of the same name, the cells of the first were silently lost."""
    cells = [[f"a text of row {row} in {at}" for at in range(len(names))] for row in range(20)]
    assert read("\n".join([first, *map(",".join, cells)])) == [dict(zip(names, row, strict=True)) for row in cells]


def test_a_row_with_a_rare_label_is_not_a_header() -> None:
    """With 77 labels, 100 rows rarely repeat one. The first row was taken for the header."""
    rows = [f"please help {n},card_problem_kind{n % 77}" for n in range(1000)]
    found = read("\n".join(rows))
    assert len(found) == 1000
    assert found[0] == {"column_1": "please help 0", "column_2": "card_problem_kind0"}


@pytest.mark.parametrize("times", [1, 3])
def test_a_header_may_occur_in_its_column(times: int) -> None:
    """This happens by chance, or in concatenated files with headers."""
    rows = [f"please help {n},card_problem_kind{n % 77}" for n in range(4000)]
    for n in range(times):
        rows[500 * n + 50] = "text,label"
    rows[2000] = "text,card_problem_kind3"
    rows[2001] = "text,card_problem_kind4"
    found = read("\n".join(["text,label", *rows]))
    assert len(found) == 4000
    assert found[0] == {"text": "please help 0", "label": "card_problem_kind0"}


@pytest.mark.parametrize(
    "rows",
    [
        [f'{n % 4 + 1},"Title {n}","A story about number {n}"' for n in range(40)],  # as AG News is written
        [f"{('good', 'bad')[n % 2]},some words about {n}" for n in range(40)],
        ["I liked this film very much.", *(f"Review {n} is another one" for n in range(40))],
        ["1,first of all", *(f"{n},more of it" for n in range(2, 40))],
    ],
)
def test_a_table_without_header_keeps_its_first_row(rows: list[str]) -> None:
    found = read("\n".join(rows))
    assert len(found) == len(rows)
    assert all(isinstance(row, dict) and next(iter(row)) == "column_1" for row in found)
