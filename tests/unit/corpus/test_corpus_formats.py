"""Every format that is promised is read, and no file, however bad, stops a run."""

from __future__ import annotations

import bz2
import gzip
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from groundup.corpus.formats import Extracted, Format, Unreadable, extract
from groundup.corpus.records import RecordRules
from groundup.corpus.sources import Item

TEXT = "Je me souviens très bien. Straße, naïveté — “genau so”.\n" * 3


def read(path: str, data: bytes, rules: RecordRules | None = None, format: Format | None = None) -> list[str]:
    """What comes out of a file: its texts, or "reason!" where there is none."""
    item = Item(path, len(data))
    found = extract(item, partial(io.BytesIO, data), rules or RecordRules(), format)
    return [each.text if isinstance(each, Extracted) else f"{each.reason}!" for each in found]


@pytest.mark.parametrize("compress", [None, gzip.compress, bz2.compress, zstandard.ZstdCompressor().compress])
def test_text_plain_and_compressed(compress: Callable[[bytes], bytes] | None) -> None:
    suffix = {None: "", gzip.compress: ".gz", bz2.compress: ".bz2"}.get(compress, ".zst")
    data = TEXT.encode()
    assert read(f"a.txt{suffix}", compress(data) if compress else data) == [TEXT]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings(encoding: str) -> None:
    assert read("a.txt", TEXT.encode(encoding)) == [TEXT]


def test_a_multibyte_character_on_a_block_edge_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.formats.BLOCK", 7)
    text = "äöü\n\nß€😀 " * 30
    assert "".join(read("a.txt", text.encode())) == text


def test_html_gives_the_main_text() -> None:
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


def test_markdown_loses_its_front_matter() -> None:
    assert read("a.md", b"---\r\ntitle: x\r\n---\r\n# Head\r\n") == ["# Head\n"]


def test_tables() -> None:
    rows = [{"id": "1", "text": 'with "quotes", commas\nand lines'}, {"id": "2", "text": "ü"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    expected = [row["text"] for row in rows]
    assert read("a.jsonl", lines.encode()) == expected
    assert read("a.json", lines.encode()) == expected  # JSON lines under the wrong name
    assert read("a.json", json.dumps(rows).encode()) == expected
    assert read("a.csv", 'id;text\n1;"with ""quotes"", commas\nand lines"\n2;ü\n'.encode("cp1252")) == expected
    assert read("a.tsv", b"id\ttext\n7\tseven\n") == ["seven"]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    assert read("a.parquet", buffer.getvalue()) == expected
    assert read("a.parquet.gz", gzip.compress(buffer.getvalue())) == expected


def test_html_inside_records() -> None:
    data = json.dumps({"text": "First <b>bold</b>.\n\nSecond &lt; <a href='x'>link</a>."}).encode()
    assert read("a.jsonl", data, RecordRules(html=True)) == ["First bold.\n\nSecond < link."]


@pytest.mark.parametrize(
    ("path", "data", "outcome"),
    [
        ("a.txt", bytes(range(256)) * 40, ["binary!"]),
        ("a.txt", b"%PDF-1.7\n1 0 obj", ["binary!"]),
        ("a.html", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["binary!"]),
        ("a.csv", b"PK\x03\x04\0\0\0\0", ["binary!"]),
        ("a.exe", b"MZ", ["unsupported format .exe!"]),
        (
            "a.jsonl",
            b'{"text": "good"}\n{"text": bad}\n\n[]\n',
            ["good", "record without text!", "line is not JSON!"],
        ),
        ("a.json", b'{"text": "cut o', ["damaged!"]),
        ("a.json", b"[" * 100_000, ["too deeply nested!"]),
        ("a.parquet", b"PAR1 not really PAR1", ["damaged!"]),
        ("a.txt.gz", b"not gzip at all", ["damaged!"]),
        ("a.txt.zst", b"not zstd at all", ["damaged!"]),
        ("a.txt.bz2", b"not bzip2 at all", ["damaged!"]),
        ("a.txt", b"", [""]),
    ],
)
def test_bad_files_are_counted_not_raised(path: str, data: bytes, outcome: list[str]) -> None:
    assert read(path, data) == outcome


def test_truncated_gzip_keeps_what_came_before() -> None:
    whole = gzip.compress("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(9000)).encode())
    found = read("a.jsonl.gz", whole[: len(whole) // 2])
    assert found[0] == "line 0"
    assert found[-1] == "damaged!"


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.csv.gz", "a.html.gz", "a.parquet.gz"])
def test_a_decompression_bomb_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times its size: read whole, a file of 10 MB would fill the memory of a laptop."""
    monkeypatch.setattr("groundup.corpus.streams.BOMB_FLOOR", 1 << 20)
    bomb = gzip.compress(b"a" * (8 << 20), 9)
    assert read(name, bomb)[-1] == "decompression bomb!"


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.formats.LINE_LIMIT", 1000)
    assert read("a.jsonl", b'{"text": "' + b"a" * 5000 + b'"}') == ["too large!"]


def test_a_file_that_may_not_be_opened() -> None:
    def refuse() -> io.BytesIO:
        raise PermissionError("no")

    assert list(extract(Item("a.txt", 1), refuse, RecordRules(), None)) == [Unreadable("a.txt", "permission denied")]


def test_format_override() -> None:
    assert read("notes.log", b"a log", format="text") == ["a log"]


def test_real_files(request: pytest.FixtureRequest) -> None:
    data = request.config.rootpath.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the shared data folder is not here")
    for path in sorted(Path(data, "documents").glob("*.pdf"))[:5]:
        assert read(path.name.replace(".pdf", ".txt"), path.read_bytes()) == ["binary!"]
    found = read("a.jsonl.gz", Path(data, "instructions", "self_instruct_seed_tasks.jsonl.gz").read_bytes())
    assert len(found) == 175
