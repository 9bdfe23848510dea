"""CSV and TSV as people write them: no cell is lost or merged with its neighbours unless that is counted."""

from __future__ import annotations

import csv
import io

import pytest

from groundup.corpus.formats import Record, read_records
from groundup.corpus.formats.delimited import find_layout
from groundup.corpus.sources import Item


def read(data: str, name: str = "a.csv") -> list[dict[str, str | None] | str]:
    """The rows of a table, or "reason!" for those that are none."""
    found = read_records(Item(name, len(data)), lambda: io.BytesIO(data.encode()), None, None)
    return [each.value if isinstance(each, Record) else f"{each.reason}!" for each in found]


def test_commas_in_the_only_column_are_text() -> None:
    """Without a word all after the first comma was lost."""
    assert read("text\nWell, yes, I do.\nNo.\n\n") == [{"text": "Well, yes, I do."}, {"text": "No."}]


def test_prose_without_header_is_one_column() -> None:
    prose = ["Well, he said, I do not know what it means.", "No.", "One, two, three; and so on, and on."]
    assert read("\n".join(prose)) == [{"column_1": line} for line in prose]


def test_cells_beyond_the_header_are_counted() -> None:
    """Which comma is the text's nobody knows: a label would come out of the middle of a sentence."""
    rows = read("id,text,label\n1,yes,pos\n2,no, really,neg\n3,fine,pos,\n4,short\n")
    assert rows == [
        {"id": "1", "text": "yes", "label": "pos"},
        "row with more cells than columns!",
        {"id": "3", "text": "fine", "label": "pos"},  # a delimiter at the end of each line is but a habit
        {"id": "4", "text": "short", "label": None},
    ]


def test_quotes_of_the_text_in_tsv() -> None:
    """A cell that begins with a quotation swallowed all up to the next quotation: half of the rows."""
    texts = ['"Yes," he said.', "plain", '"No" is a word', "it ended", '"unclosed']
    data = "text\tlabel\n" + "".join(f"{text}\t{n}\n" for n, text in enumerate(texts))
    assert read(data, "a.tsv") == [{"text": text, "label": str(n)} for n, text in enumerate(texts)]


def test_quotes_of_the_table_in_tsv() -> None:
    """pandas quotes cells of TSV, too, and then a cell may hold tabs and lines."""
    cells = [["text", "label"], ['a "word"\tand\nlines', "x"], ["plain", "y"]]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter="\t").writerows(cells)
    assert read(buffer.getvalue(), "a.tsv") == [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]
    cut = buffer.getvalue()[: buffer.getvalue().index("and")]  # where the sample ends inside such a cell
    assert find_layout(cut, "\t", whole=False).quoted
    assert not find_layout(cut, "\t", whole=True).quoted


@pytest.mark.parametrize(
    "first",
    [
        "text,label",
        "0,1",  # pandas' columns without names
        "What is your age?,How satisfied are you with our service in general?",
        "country,2019",
        "te{x}t,label",
    ],
)
def test_a_header_is_one(first: str) -> None:
    """A header taken for a row would lose the names that a recipe or a label column is found by."""
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
def test_names_of_columns_are_different(first: str, names: list[str]) -> None:
    """Of two columns of one name the cells of the first were lost without a word."""
    cells = [[f"a text of row {row} in {at}" for at in range(len(names))] for row in range(20)]
    assert read("\n".join([first, *map(",".join, cells)])) == [dict(zip(names, row, strict=True)) for row in cells]


def test_a_row_of_a_rare_label_is_no_header() -> None:
    """Of 77 intents hardly one is found twice in a hundred rows: the first row was the header, and its label lost."""
    rows = [f"please help {n},card_problem_kind{n % 77}" for n in range(1000)]
    found = read("\n".join(rows))
    assert len(found) == 1000
    assert found[0] == {"column_1": "please help 0", "column_2": "card_problem_kind0"}


@pytest.mark.parametrize("times", [1, 3])
def test_a_header_that_is_found_in_its_column_is_one(times: int) -> None:
    """By chance, or since files were joined, each with its header."""
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
