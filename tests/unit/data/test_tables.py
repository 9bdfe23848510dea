"""Tables in all formats: which rows are read, and which files are rejected."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.corpus import FolderSource
from groundup.data import cell_text, read_table, table_identity

ROWS = [{"question": "Who, and why?", "answer": 'A "friend"\nof ours'}, {"question": "Où?", "answer": "Là"}]


def parquet(rows: list[dict[str, object]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def excel(*sheets: list[list[object]], hidden: int | None = None) -> bytes:
    """Write a workbook with openpyxl."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"s{number}")
        sheet.sheet_state = "hidden" if number == hidden else "visible"
        for row in rows:
            sheet.append(row)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CSV = 'question,answer\n"Who, and why?","A ""friend""\nof ours"\nOù?,Là\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", JSONL),
        ("t.json", json.dumps(ROWS).encode()),
        ("t.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("t.csv", CSV.encode()),
        ("t.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("t.csv", CSV.replace("question,", "question;").replace('?",', '?";').replace("Où?,", "Où?;").encode()),
        ("t.csv", CSV.encode("utf-16")),
        ("t.parquet", parquet(ROWS)),
        ("t.xlsx", excel([["question", "answer"], *(list(row.values()) for row in ROWS)])),
        ("t.jsonl.gz", gzip.compress(JSONL)),
        ("t.csv.bz2", bz2.compress(CSV.encode())),
        ("t.parquet.zst", zstandard.compress(parquet(ROWS))),
    ],
)
def test_all_formats_give_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    table = read_table(tmp_path / name)
    assert (table.name, table.columns, table.rows) == (name, ("question", "answer"), ROWS)


def test_tsv_and_ragged_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows with more or fewer cells than the header must not shift columns; ambiguous rows are dropped."""
    (tmp_path / "t.tsv").write_text("q\ta\none\ttwo\nshort\nlong\tx\ty\n", encoding="utf-8")
    assert read_table(tmp_path / "t.tsv").rows == [
        {"q": "one", "a": "two"},
        {"q": "short", "a": None},
    ]
    assert "t.tsv#3" in capsys.readouterr().err


def test_columns_are_the_union_over_rows(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"b": [1, {"c": null}]}\n', encoding="utf-8")
    table = read_table(tmp_path / "t.jsonl")
    assert table.columns == ("a", "b")
    assert table.rows[1] == {"b": [1, {"c": None}]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"", "no rows"),
        ("t.csv", b"a,b\n", "no rows"),
        ("t.jsonl", b"\n\n", "no rows"),
        ("t.jsonl", b"this is prose\nand more\n", "t.jsonl:1: line is not JSON"),
        ("t.json", b'[{"a": 1}, {"a"', "damaged"),
        ("t.json", b"[" * 100_000, "nested"),
        ("t.json", b"3", "a row must have columns"),
        ("t.parquet", b"PAR1 and no more", "damaged"),
        ("t.jsonl.gz", gzip.compress(JSONL * 500)[:-9], "damaged"),
        ("t.csv", bytes(range(256)), "binary"),
        ("t.txt", b"prose", "text is not a table format"),
        ("t.yml", b"a: PK", "unsupported format .yml"),
    ],
)
def test_files_that_are_not_tables_are_rejected(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value)


def test_missing_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="no such"):
        table_identity(tmp_path / "absent.csv")


def test_a_broken_line_is_dropped_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One truncated line in ten thousand should not reject a file."""
    (tmp_path / "t.jsonl").write_bytes(JSONL + b'{"question": "cut of\n' + JSONL)
    assert read_table(tmp_path / "t.jsonl", console=Console()).rows == ROWS + ROWS
    assert "t.jsonl:3" in capsys.readouterr().err


def test_a_folder_is_one_table(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(JSONL)
    (tmp_path / "a.csv").write_text("question,answer\n1,2\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("# Data\n", encoding="utf-8")
    assert read_table(tmp_path).rows == [{"question": "1", "answer": "2"}, *ROWS]


def test_sources_configure_the_path_of_records(tmp_path: Path) -> None:
    nested = {"info": {"n": 2}, "splits": {"train": {"items": ROWS}}}
    (tmp_path / "odd.data").write_text(json.dumps(nested), encoding="utf-8")
    source = FolderSource(path=tmp_path, files=["*.data"], format="json", records="splits.train.items.*")
    assert read_table([source]).rows == ROWS


def test_records_that_are_not_objects_get_columns(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('"alone"\n["q", "a"]\n[{"role": "user"}]\n', encoding="utf-8")
    assert read_table(tmp_path / "t.jsonl").rows == [
        {"text": "alone"},
        {"column_1": "q", "column_2": "a"},
        {"messages": [{"role": "user"}]},
    ]


@pytest.mark.parametrize("as_data", [lambda path: path, lambda path: [FolderSource(path=path)]])
def test_the_identity_depends_on_the_content(tmp_path: Path, as_data: Callable[[Path], object]) -> None:
    """If it did not, a stage with changed data would be skipped."""
    path = tmp_path / "t.jsonl"
    path.write_bytes(JSONL)
    first = table_identity(as_data(path))  # type: ignore[arg-type]
    assert table_identity(as_data(path)) == first  # type: ignore[arg-type]
    path.write_bytes(JSONL.replace(b"friend", b"fiends"))  # the same length
    assert table_identity(as_data(path)) != first  # type: ignore[arg-type]


def test_cells_as_text() -> None:
    cells = {" x ": "x", True: "true", False: "false", 3: "3", 2.5: "2.5", None: "", float("nan"): ""}
    assert [cell_text(cell) for cell in cells] == list(cells.values())
    assert cell_text(["x"]) == cell_text({"text": "x"}) == ""


def test_a_typical_workbook(tmp_path: Path) -> None:
    """Empty rows, a second sheet, a hidden sheet, notes next to the table, dates and numbers."""
    first = [[], ["text", "label", None], ["one", 3, None], [None, None, None], ["two", 4.5, "a note"]]
    second = [["text", "day"], ["three", datetime.date(2024, 2, 29)]]
    (tmp_path / "t.xlsx").write_bytes(excel(first, [["text"], ["secret"]], second, hidden=1))
    table = read_table(tmp_path / "t.xlsx")
    assert table.rows == [
        {"text": "one", "label": 3},
        {"text": "two", "label": 4.5, "column_3": "a note"},
        {"text": "three", "day": "2024-02-29T00:00:00"},
    ]
    (tmp_path / "empty.xlsx").write_bytes(excel([["text", "label"]]))
    with pytest.raises(DataError, match="no sheet with rows"):
        read_table(tmp_path / "empty.xlsx")


def test_duplicate_column_names_in_workbooks_and_csv(tmp_path: Path) -> None:
    """One of the two columns was once dropped without a message."""
    rows: list[list[object]] = [["text", " label ", "label", None, "column_7"], ["one", "a", "b", "c", "d"]]
    names = ["text", "label", "label_2", "column_4", "column_7"]
    (tmp_path / "t.csv").write_text("text, label ,label,,column_7\none,a,b,c,d\n", encoding="utf-8")
    (tmp_path / "t.xlsx").write_bytes(excel(rows))
    expected = dict(zip(names, ["one", "a", "b", "c", "d"], strict=True))
    assert read_table(tmp_path / "t.csv").rows == read_table(tmp_path / "t.xlsx").rows == [expected]
    (tmp_path / "t.xlsx").write_bytes(excel([*rows, ["two", "a", "b", None, "d", None, "a note"]]))
    assert read_table(tmp_path / "t.xlsx").rows[1] == {
        "text": "two", "label": "a", "label_2": "b", "column_7": "d", "column_7_2": "a note",
    }  # fmt: skip


@pytest.mark.parametrize("damage", ["cut", "a part gone", "a part spoilt", "a bomb"])
def test_damaged_and_hostile_workbooks_are_rejected(tmp_path: Path, damage: str) -> None:
    whole = excel([["text", "label"], *([f"text {n}", n % 3] for n in range(500))])
    path = tmp_path / "t.xlsx"
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for member in old.infolist():
                content = old.read(member)
                if member.filename == "xl/worksheets/sheet1.xml":
                    if damage == "a part gone":
                        continue
                    content = content[:200] if damage == "a part spoilt" else b" " * 600_000_000
                new.writestr(member.filename, content)
    with pytest.raises(DataError, match=r"t\.xlsx"):
        read_table(path)


def test_the_final_branch_of_an_exported_chat(tmp_path: Path) -> None:
    """ChatGPT exports a tree in which regenerated answers are branches; the file follows its documentation."""

    def node(role: str, text: str, parent: str | None) -> dict[str, object]:
        return {"message": {"author": {"role": role}, "content": {"parts": [text]}}, "parent": parent}

    mapping = {
        "r": {"message": None, "parent": None},
        "a": node("user", "Name a colour.", "r"),
        "b": node("assistant", "Loud.", "a"),
        "c": node("assistant", "Green.", "a"),
    }
    chats = [{"title": "Colours", "create_time": 1.7e9, "mapping": mapping, "current_node": "c"}]
    (tmp_path / "conversations.json").write_text(json.dumps(chats), encoding="utf-8")
    turns = [{"name": "user", "content": "Name a colour."}, {"name": "assistant", "content": "Green."}]
    assert read_table(tmp_path / "conversations.json").rows == [{"messages": turns}]
    (tmp_path / "one.json").write_text(json.dumps(chats[0]), encoding="utf-8")
    assert read_table(tmp_path / "one.json").rows == [{"messages": turns}]


def test_tables_in_an_archive_are_selected_by_name(tmp_path: Path) -> None:
    """Papers publish archives of data and notes, some in tar formats older than ustar."""
    files = {"a/ratings.txt": b"1\t0.5\tfine\n2\t-1\tbad\n", "a/README.txt": b"Read me.\n", "a/raw.txt": b"9\t9\tno\n"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    data = bytearray(buffer.getvalue())
    data[257:265] = bytes(8)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(bytes(data)))
    source = FolderSource(path=tmp_path, files=["*set.tar.gz", "*/ratings.txt"], format="tsv")
    table = read_table([source])
    assert [row["column_3"] for row in table.rows] == ["fine", "bad"]
