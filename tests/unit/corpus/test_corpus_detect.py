"""Formats are detected by content. The name decides only if the content is ambiguous."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from functools import partial

import pytest

from groundup.corpus.formats import Extracted, extract
from groundup.corpus.formats.base import UnknownFormatError
from groundup.corpus.formats.detect import detect
from groundup.corpus.records import RecordOptions
from groundup.corpus.sources import Item

PROSE = (
    "It was a bright cold day in April, and the clocks were striking thirteen. Winston Smith, his chin nuzzled into "
    "his breast in an effort to escape the vile wind, slipped quickly through the glass doors.\n"
)
MAIL = (
    "Received: from mx.example.org (mx.example.org [192.0.2.7])\n\tby home with ESMTP; Tue, 3 Mar 2020 10:00:00 +0100\n"
    "From: Ada <ada@example.org>\nTo: Charles <cb@example.org>\nSubject: The engine\n"
    "Date: Tue, 3 Mar 2020 10:00:00 +0100\n\n"
    "It weaves algebraical patterns.\n"
)
PAGE = "<!DOCTYPE html>\n<html><head><title>T</title></head><body><p>One.</p></body></html>"
TABLE = "name,age,city\n" + "".join(f"N{n},{n},Town {n}\n" for n in range(9))


@pytest.mark.parametrize("path", ["noname", "a.txt", "a.dat", "a.json", "a.pdf", "a.txt.gz"])
@pytest.mark.parametrize(
    ("content", "format"),
    [
        (PAGE, "html"),
        (f"<!-- saved from url=(0014)about:internet -->\n{PAGE}", "html"),
        (f'<?xml version="1.0" encoding="utf-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml">{PROSE}</html>', "html"),
        ('<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">\n<siteinfo>', "wiki"),
        (MAIL, "email"),
        ("From ada@example.org Tue Mar  3 10:00:00 2020\n" + MAIL, "mbox"),
        ("From MAILER-DAEMON Fri Jul  8 12:08:34 2011\nFrom: A <a@example.org>\n\nBody\n", "mbox"),
        ('{"a": "one"}\n{"a": "two"}\n', "jsonl"),
        ('[\n {"a": "one"},\n {"a": "two"}\n]\n', "json"),
        ('{"a": "' + "long " * 30_000 + '"}', "json"),
        ("%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "pdf"),
        ("WARC/1.0\r\nWARC-Type: warcinfo\r\n", "warc"),
    ],
)
def test_unambiguous_content(path: str, content: str, format: str) -> None:
    assert detect(path, content.encode()) == format


@pytest.mark.parametrize(
    ("path", "content", "format"),
    [
        ("a.txt", PROSE, "text"),
        ("README", PROSE, "text"),
        ("a.md", f"# Head\n\n{PROSE}", "markdown"),
        ("a.md", '<h1 align="center">Tool</h1>\n<p align="center"><img src="a.png"></p>\n\n# Tool', "markdown"),
        ("a.txt", '<h1 align="center">Tool</h1>\n<p>One.</p>\n<p>Two.</p>', "html"),
        ("a.dat", PROSE * 5, "text"),  # unknown suffix and prose
        ("a.csv", PROSE, "csv"),  # commas in prose; the suffix decides
        ("a.txt", PROSE * 9, "text"),
        ("a.txt", TABLE, "csv"),
        ("export", TABLE.replace(",", "\t"), "tsv"),
        ("a.html", PROSE, "text"),
        ("poem.txt", "[Verse 1]\nRoses are red\n", "text"),
        ("refs.txt", "[1] Knuth, D. The Art of Computer Programming.\n[2] Turing, A.\n" + PROSE * 999, "text"),
        ("wiki.txt", "{{Infobox person\n| name = Ada\n}}\n'''Ada''' was a mathematician.\n", "text"),
        ("from.txt", "From what I saw at 10:30 nobody came.\n" + PROSE, "text"),
        ("play.txt", "Romeo: I see.\nJuliet: You do.\n\nExeunt.\n", "text"),
    ],
)
def test_the_suffix_decides_ambiguous_content(path: str, content: str, format: str) -> None:
    assert detect(path, content.encode()) == format


@pytest.mark.parametrize(
    ("path", "content", "what"),
    [
        ("a.txt", b"{\\rtf1\\ansi Hello}", "RTF"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "Microsoft Office before 2007"),
        ("a.txt", b"\x7fELF\x02\x01\x01" + bytes(99), "program"),
        ("a.xml", b'<?xml version="1.0"?><rss version="2.0"><channel/></rss>', "XML <rss>"),
        ("a.py", b"import os\n\nfor name in os.listdir('.'):\n    print(name.upper(), end='')\n", ".py"),
        ("a.yml", b"on:\n  push:\n    branches: [main]\n", ".yml"),
        ("a.bin", bytes(range(256)) * 9, "binary"),
        ("a.txt.lz4", b'\x04"M\x18' + bytes(range(256)), "LZ4"),
        ("a.z01", b"PK\x07\x08PK\x03\x04" + bytes(range(256)), "part of a split zip"),
    ],
)
def test_unsupported_formats_are_named(path: str, content: bytes, what: str) -> None:
    with pytest.raises(UnknownFormatError, match=what.replace(".", r"\.")):
        detect(path, content)


def read(path: str, data: bytes) -> list[tuple[str, str]]:
    found = extract(Item(path, len(data)), partial(io.BytesIO, data), RecordOptions(), None)
    return [(each.origin, each.text if isinstance(each, Extracted) else f"{each.reason}!") for each in found]


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def test_compression_needs_no_suffix() -> None:
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        assert read("a", compress(PROSE.encode())) == [("a", PROSE)]
    assert read("a.txt.gz", PROSE.encode()) == [("a.txt.gz", PROSE)]  # not compressed despite its suffix
    assert read("a", gzip.compress(bz2.compress(PROSE.encode()))) == [("a", PROSE)]


def test_an_archive_is_read_like_a_directory() -> None:
    inner = zipped({"deep.txt": b"Deep."})
    members = {
        "a.txt": b"One.",
        "b/c.jsonl": b'{"text": "Two."}\n',
        "in.zip": inner,
        ".hidden": b"x",
        "x.png": b"\x89PNG\r\n\x1a\n\0",
    }
    expected = [
        ("s/a.txt", "One."),
        ("s/b/c.jsonl#1", "Two."),
        ("s/in.zip/deep.txt", "Deep."),
        ("s/x.png", "unsupported format: image!"),
    ]
    assert read("s", zipped(members)) == expected
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert read("s", buffer.getvalue()) == expected


def test_members_with_unsafe_paths() -> None:
    """Archives are not unpacked to disk, but such names indicate an attack."""
    assert read("s", zipped({"../../etc/passwd": b"root", "ok.txt": b"One."})) == [
        ("s/../../etc/passwd", "unsafe path!"),
        ("s/ok.txt", "One."),
    ]


def test_a_member_that_cannot_be_opened_is_skipped() -> None:
    """An unsupported compression (here of 7-Zip) or a damaged header lost all later members."""
    whole = zipped({"a.txt": b"One.", "b.txt": b"Two.", "c.txt": b"Three."})
    at = whole.index(b"PK\x03\x04", 4)
    assert read("s", whole[:at] + b"XX" + whole[at + 2 :]) == [
        ("s/a.txt", "One."),
        ("s/b.txt", "damaged!"),
        ("s/c.txt", "Three."),
    ]
    listed = whole.index(b"PK\x01\x02")  # the central directory, with the method at byte 10
    unknown = whole[: listed + 10] + b"\x62\x00" + whole[listed + 12 :]
    assert read("s", unknown) == [("s/a.txt", "unknown compression!"), ("s/b.txt", "Two."), ("s/c.txt", "Three.")]


def test_a_symbolic_link_in_an_archive_is_not_text() -> None:
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(link, "/etc/passwd")
    assert read("s", buffer.getvalue()) == [("s/link.txt", "not a regular file!")]


def test_deeply_nested_archives() -> None:
    data = b"One."
    for _ in range(30):
        data = zipped({"a.zip": data})
    assert read("s", data) == [("s/a.zip/a.zip/a.zip", "too many archives inside of each other!")]


def test_a_bomb_of_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """No member is suspicious alone. Together they are 1,000 times the size of the file."""
    monkeypatch.setattr("groundup.corpus.streams.MIN_BOMB_BYTES", 1 << 20)
    nested = zipped({f"{n}.txt": b"a" * 300_000 for n in range(6)})
    assert read("s", zipped({"1.zip": nested, "2.zip": nested}))[-1] == ("s", "decompression bomb!")


def test_a_sparse_member_that_claims_a_terabyte() -> None:
    """The archive has 10 kB. Reading the holes would take hours."""
    header = tarfile.TarInfo("hole.txt")
    header.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 40),
                          "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,4"}  # fmt: skip
    header.size = 4
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(b"Text"))
    assert read("s.tar", buffer.getvalue())[-1][1] in ("decompression bomb!", "binary!")


def test_a_truncated_archive_keeps_the_members_before() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4000
            tar.addfile(info, io.BytesIO(b"word " * 800))
    found = read("s.tar", buffer.getvalue()[:7000])
    assert found[0] == ("s.tar/a.txt", "word " * 800)
    assert found[-1][1] == "damaged!"


def test_json_chats_need_no_settings() -> None:
    telegram = {"name": "Ada", "type": "personal_chat", "id": 1, "messages": [
        {"id": 1, "type": "service", "date": "2020-01-01T10:00:00", "actor": "Ada", "action": "phone_call", "text": ""},
        {"id": 2, "type": "message", "date": "2020-01-01T10:01:00", "from": "Ada", "text": "Hello."},
        {"id": 3, "type": "message", "date": "2020-01-01T10:02:00", "from": "Bob", 
         "text": ["See ", {"type": "link", "text": "this"}]},
    ]}  # fmt: skip
    assert read("result.json", json.dumps(telegram).encode()) == [("result.json#1", "Ada: Hello.\nBob: See this")]
