"""All supported formats are read, and malformed files do not stop a run."""

from __future__ import annotations

import array
import bz2
import gzip
import io
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from groundup.corpus.formats import Extracted, Unreadable, extract
from groundup.corpus.records import RecordOptions
from groundup.corpus.sources import Item
from groundup.corpus.sources.base import Format

TEXT = "Je me souviens très bien. Straße, naïveté — “genau so”.\n" * 3


def read(path: str, data: bytes, options: RecordOptions | None = None, format: Format | None = None) -> list[str]:
    """Return the texts of a file, or "reason!" for parts without text."""
    item = Item(path, len(data))
    found = extract(item, partial(io.BytesIO, data), options or RecordOptions(), format)
    return [each.text if isinstance(each, Extracted) else f"{each.reason}!" for each in found]


@pytest.mark.parametrize("compress", [None, gzip.compress, bz2.compress, zstandard.ZstdCompressor().compress])
def test_text_plain_and_compressed(compress: Callable[[bytes], bytes] | None) -> None:
    suffix = {None: "", gzip.compress: ".gz", bz2.compress: ".bz2"}.get(compress, ".zst")
    data = TEXT.encode()
    assert read(f"a.txt{suffix}", compress(data) if compress else data) == [TEXT]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings(encoding: str) -> None:
    assert read("a.txt", TEXT.encode(encoding)) == [TEXT]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", [TEXT, "Быстрая лиса прыгает.\r\n", "吾輩は猫である。\n名前はまだ無い。\n", "Ja 😀 doch.\n"]
)
def test_utf16_without_a_byte_order_mark(text: str, encoding: str) -> None:
    """Half of its bytes are NUL, so it was taken for binary."""
    whole = text * 700  # the head ends inside a character
    assert read("a.txt", whole.encode(encoding)) == [whole]
    assert read("noname", f"<html><body><p>{TEXT}</p>".encode(encoding))[0].startswith(TEXT[:20])


@pytest.mark.parametrize("kind", ["H", "i", "f"])
def test_binary_numbers_are_not_utf16(kind: str) -> None:
    numbers = array.array(kind, [n * 37 % 5000 for n in range(3000)])
    assert read("a.txt", numbers.tobytes()) == ["binary!"]


def test_one_nul_byte_does_not_make_text_binary() -> None:
    """Crashed programs leave some NUL bytes in text. A file with many of them is binary."""
    assert read("a.txt", f"{TEXT}\0{TEXT}".encode()) == [f"{TEXT}\0{TEXT}"]
    assert read("a.txt", b"\0".join([TEXT.encode()] * 9)) == ["binary!"]


def test_a_multibyte_character_at_a_block_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.formats.plain.BLOCK", 7)
    text = "äöü\n\nß€😀 " * 30
    assert "".join(read("a.txt", text.encode())) == text


def test_html_main_text() -> None:
    paragraphs = "".join(f"<p>Paragraph {n} tells a story that is long enough to be one.</p>" for n in range(5))
    page = (
        "<html><head><title>T</title><script>var x=1</script></head><body><nav><a href=/>Home</a></nav>"
        f"<article><h1>Story</h1>{paragraphs}</article><footer>Imprint</footer></body></html>"
    )
    (text,) = read("a.html", page.encode())
    assert "Paragraph 4 tells" in text
    assert "var x" not in text
    assert "<p>" not in text


def test_html_declares_its_encoding() -> None:
    head = '<html><head><meta charset="windows-1251"></head>'
    page = head + "<body><article><p>Привет, мир. Как дела сегодня?</p></article></body></html>"
    assert "Привет, мир" in read("a.html", page.encode("cp1251"))[0]


def test_markdown_without_front_matter() -> None:
    assert read("a.md", b"---\r\ntitle: x\r\n---\r\n# Head\r\n") == ["# Head\n"]


def test_tables() -> None:
    rows = [{"id": "1", "text": 'with "quotes", commas\nand lines'}, {"id": "2", "text": "ü"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    expected = [row["text"] for row in rows]
    assert read("a.jsonl", lines.encode()) == expected
    assert read("a.json", lines.encode()) == expected  # JSON Lines with the wrong suffix
    assert read("a.json", json.dumps(rows).encode()) == expected
    assert read("a.csv", 'id;text\n1;"with ""quotes"", commas\nand lines"\n2;ü\n'.encode("cp1252")) == expected
    assert read("a.tsv", b"id\ttext\n7\tseven\n") == ["seven"]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    assert read("a.parquet", buffer.getvalue()) == expected
    assert read("a.parquet.gz", gzip.compress(buffer.getvalue())) == expected


def test_html_inside_records() -> None:
    data = json.dumps({"text": "First <b>bold</b>.\n\nSecond &lt; <a href='x'>link</a>."}).encode()
    assert read("a.jsonl", data, RecordOptions(html=True)) == ["First bold.\n\nSecond < link."]


@pytest.mark.parametrize(
    ("path", "data", "outcome"),
    [
        ("a.txt", bytes(range(256)) * 40, ["binary!"]),
        ("a.txt", b"%PDF-1.7\n1 0 obj", ["damaged!"]),
        ("a.html", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["unsupported format: image!"]),
        ("a.csv", b"PK\x03\x04\0\0\0\0", ["damaged!"]),
        ("a.exe", b"MZ", ["unsupported format .exe!"]),
        (
            "a.jsonl",
            b'{"text": "good"}\n{"text": bad}\n\n[]\n',
            ["good", "record without text!", "line is not JSON!"],
        ),
        ("a.json", b'{"text": "cut o', ["damaged!"]),
        ("a.json", b"[" * 100_000, ["too deeply nested!"]),
        ("a.parquet", b"PAR1 not really PAR1", ["damaged!"]),
        ("a.txt.gz", b"\x1f\x8b not gzip at all", ["damaged!"]),
        ("a.txt.zst", b"\x28\xb5\x2f\xfd not zstd at all", ["damaged!"]),
        ("a.txt.bz2", b"BZh91AY&SY not bzip2 at all", ["damaged!"]),
        ("a.txt", b"", [""]),
    ],
)
def test_bad_files_are_counted_not_raised(path: str, data: bytes, outcome: list[str]) -> None:
    assert read(path, data) == outcome


def parquet(columns: dict[str, pa.Array]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**62, 0], pa.timestamp("us")),  # after the year 9999, the maximum in Python
        pa.array([123, 456], pa.timestamp("ns")),
        pa.array([0, 0], pa.timestamp("us", tz="Nowhere/Atlantis")),
        pa.array([2**30, 0], pa.date32()),
        pa.array([2**62, 0], pa.duration("s")),
        pa.array([[{"at": 2**62, "by": "x"}], []], pa.list_(pa.struct({"at": pa.timestamp("us"), "by": pa.string()}))),
        pa.array([[("k", 2**62)], []], pa.map_(pa.string(), pa.timestamp("us"))),
    ],
    ids=lambda column: str(column.type)[:24],
)
def test_parquet_columns_of_dates_are_ignored(column: pa.Array) -> None:
    """A date outside Python's range ended the run, or the file counted as damaged."""
    data = parquet({"when": column, "text": pa.array(["one", "two"])})
    assert read("a.parquet", data) == ["one", "two"]
    assert read("a.parquet", data, RecordOptions(text="{text}")) == ["one", "two"]


def test_one_bad_string_in_a_parquet_file() -> None:
    """Arrow does not validate strings, so one Latin-1 byte made 1,500 rows unreadable."""
    bad = pa.array([b"caf\xe9 noir", b"fine"]).view(pa.string())
    turns = pa.StructArray.from_arrays([bad, pa.array([1, 2])], ["content", "n"])
    assert read("a.parquet", parquet({"text": bad})) == ["caf\ufffd noir", "fine"]
    assert read("a.parquet", parquet({"message": turns})) == ["caf\ufffd noir", "fine"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["one", "and"], ["two", "and"]]),
        pa.array([{"n": 1, "body": "one\nand"}, {"n": 2, "body": "two\nand"}]),
        pa.array([b"one\nand", b"two\nand"]),  # strings without a logical type
        pa.array([[b"one", b"and"], [b"two", b"and"]], pa.list_(pa.large_binary())),
        pa.array(["one\nand", "two\nand"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type)[:24],
)
def test_parquet_columns_of_other_string_types(column: pa.Array) -> None:
    image = pa.array([b"\x89PNG\xff\xfe" * 99, b"\xff\xd8" * 99])
    assert read("a.parquet", parquet({"image": image, "said": column})) == ["one\nand", "two\nand"]


def test_deeply_nested_html() -> None:
    """Main-text extraction was quadratic in the depth: 600 kB took minutes."""
    deep = 100_000
    assert read("a.html", b"<p>x</p>" + b"<div>" * deep + b"x" + b"</div>" * deep) == ["x"]
    shallow = b"<article>" + b"<div>" * 400 + b"<p>A story that is told here.</p>" + b"</div>" * 400 + b"</article>"
    assert read("a.html", shallow * 9)[0].count("A story that is told here.") == 9


def test_a_page_of_tags_only() -> None:
    """Parsed, 24 MB of "<p>" took 5 GB and two minutes."""
    assert read("a.html", b"<html><body>" + b"<p>a" * 1_000_001) == ["too large!"]


@pytest.mark.parametrize("encoding", ["iso2022_jp", "iso2022_kr"])
def test_seven_bit_encodings(encoding: str) -> None:
    """Old Japanese and Korean mail and pages are valid ASCII, decoded as "$B8cGZ"."""
    text = {"iso2022_jp": "吾輩は猫である。名前はまだ無い。", "iso2022_kr": "나는 고양이로소이다."}[encoding] + " yes"
    assert read("a.txt", text.encode(encoding)) == [text]
    assert read("a.html", f"<html><body><p>{text}</p></body></html>".encode(encoding)) == [text]


def test_an_integer_of_thousands_of_digits_is_one_bad_line() -> None:
    """Python raises a different error for it than for bad JSON, so the following lines were lost."""
    lines = b'{"text": "one"}\n{"text": "two", "n": ' + b"9" * 5000 + b'}\n{"text": "three"}\n'
    for name in ("a.jsonl", "a.json"):
        assert read(name, lines) == ["one", "three", "line is not JSON!"]


FRENCH = "Où est-il ? L'été à Nîmes, naïveté, déjà là, très bien, ça va."
GERMAN = "Die Straße führt über die Brücke, schöne Grüße aus Österreich."


@pytest.mark.parametrize("text", [FRENCH, GERMAN, "It’s a “quoted” thing — don’t you think? He’s gone… the café."])
@pytest.mark.parametrize("encoding", ["mac_roman", "cp1252"])
def test_eight_bit_encodings(text: str, encoding: str) -> None:
    """Mac Roman text was detected as UTF-8, although it is invalid UTF-8, and all accents were lost."""
    text = "\n".join([text] * 20)
    assert read("a.txt", text.encode(encoding)) == [text]


def test_one_invalid_byte_in_utf8_text() -> None:
    """Decoding with an 8-bit encoding because of one byte would corrupt all accents."""
    assert read("a.txt", f"{FRENCH}\n".encode() * 20 + b"\xe9")[0] == f"{FRENCH}\n" * 20 + "\ufffd"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
def test_json_in_other_encodings(encoding: str) -> None:
    """JSON in Latin-1 violates the standard but is common. All lines counted as invalid JSON."""
    rows = [{"text": f"{number}. {FRENCH}"} for number in range(30)]
    expected = [row["text"] for row in rows]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert read("a.jsonl", lines.encode(encoding)) == expected
    assert read("a.json", json.dumps(rows, ensure_ascii=False).encode(encoding)) == expected


def test_a_file_name_with_a_period_but_no_suffix() -> None:
    """ "Chapter 1. Intro" is a title, not a file of the format "Intro"."""
    assert read("Chapter 1. Intro", b"Once.") == ["Once."]
    assert read("README.1", b"Twice.") == ["Twice."]
    assert read("notes.yml", b"a: 1") == ["unsupported format .yml!"]


def test_truncated_gzip_keeps_the_text_before() -> None:
    whole = gzip.compress("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(9000)).encode())
    found = read("a.jsonl.gz", whole[: len(whole) // 2])
    assert found[0] == "line 0"
    assert found[-1] == "damaged!"


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.csv.gz", "a.html.gz", "a.parquet.gz"])
def test_a_decompression_bomb_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1,000 times its size, a 10 MB file would fill the memory of a laptop."""
    monkeypatch.setattr("groundup.corpus.streams.MIN_BOMB_BYTES", 1 << 20)
    bomb = gzip.compress(b"a" * (8 << 20), 9)
    assert read(name, bomb)[-1] == "decompression bomb!"


def test_a_large_bomb_is_detected_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the total size alone, 7 MB could expand to 1.4 GB, all of which was cleaned and masked."""
    monkeypatch.setattr("groundup.corpus.streams.MIN_BOMB_BYTES", 1 << 20)
    path = tmp_path / "a.txt.gz"
    noise = random.Random(0).randbytes(1 << 20)
    path.write_bytes(gzip.compress((b"word " * 13 + b"\n") * 1_000_000, 9) + gzip.compress(noise))
    found = list(extract(Item(path.name, path.stat().st_size), partial(path.open, "rb"), RecordOptions(), None))
    assert found[-1] == Unreadable("a.txt.gz", "decompression bomb")
    assert sum(len(each.text) for each in found if isinstance(each, Extracted)) < 40_000_000


def test_a_truncated_text_keeps_the_text_before() -> None:
    """All text was lost if it was shorter than a block."""
    text = "".join(f"line {n}\n" for n in range(9000))
    whole = gzip.compress(text.encode())
    begun, *rest = read("a.txt.gz", whole[: len(whole) // 2])
    assert len(begun) > 9000
    assert text.startswith(begun)
    assert rest == ["damaged!"]


def test_a_line_over_the_limit_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.formats.tables.MAX_LINE_BYTES", 1000)
    endless = b'{"text": "' + b"a" * 5000 + b'"}'
    assert read("a.jsonl", endless) == ["too large!"]
    lines = b'{"text": "one"}\n' + endless + b'\n{"text": "three"}\n'
    assert read("a.jsonl", lines) == ["one", "three", "too large!"]


def test_a_word_over_the_block_size_is_not_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of 1 GB was split into 65,000 documents, which took 15 minutes."""
    monkeypatch.setattr("groundup.corpus.formats.plain.BLOCK", 1000)
    found = [text.strip() for text in read("a.txt", b"Before it.\n\n" + b"a" * 5500 + b"\n\nBehind it.")]
    assert [text.strip("a\n") for text in found if text] == ["Before it.", "too large!", "Behind it."]
    assert read("a.txt", ("猫である。" * 400).encode())[0].startswith("猫である。")


def test_a_file_without_read_permission() -> None:
    def refuse() -> io.BytesIO:
        raise PermissionError("no")

    assert list(extract(Item("a.txt", 1), refuse, RecordOptions(), None)) == [Unreadable("a.txt", "permission denied")]


def test_a_file_that_is_deleted(tmp_path: Path) -> None:
    """A file may be deleted between listing and reading. The message of that error has a private path."""
    opener = partial((tmp_path / "a.txt").open, "rb")
    assert list(extract(Item("a.txt", 1), opener, RecordOptions(), None)) == [
        Unreadable("a.txt", "deleted before it was read")
    ]


def test_format_override() -> None:
    assert read("notes.log", b"a log", format="text") == ["a log"]


def test_real_files(request: pytest.FixtureRequest) -> None:
    data = request.config.rootpath.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the shared data folder is not here")
    found = read("a.jsonl.gz", Path(data, "instructions", "self_instruct_seed_tasks.jsonl.gz").read_bytes())
    assert len(found) == 175
