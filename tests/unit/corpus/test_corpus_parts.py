"""A large web archive is split into parts, and each page is read exactly once."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from groundup.core.console import Console
from groundup.corpus import CorpusSettings, FolderSource, build_corpus, read_documents
from groundup.corpus.executor import ProcessPool

PAGES = 60


def _record(number: int, text: str) -> bytes:
    paragraphs = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
    page = f"<html><body><article><h1>Page {number}</h1>{paragraphs}</article></body></html>".encode()
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012}>\r\n"
        f"WARC-Target-URI: http://pages.example/{number}\r\nWARC-Date: 2026-01-0{number % 9 + 1}T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


@pytest.mark.parametrize("kind", ["members", "plain", "whole"])
def test_every_page_once(kind: str, real_documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.reading.UNIT_BYTES", 10_000)
    texts = [text for text in real_documents if 600 < len(text) < 20_000][:PAGES]
    records = [_record(number, text) for number, text in enumerate(texts)]
    data = {
        "members": b"".join(map(gzip.compress, records)),
        "plain": b"".join(records),
        "whole": gzip.compress(b"".join(records)),
    }[kind]
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / ("pages.warc" if kind == "plain" else "pages.warc.gz")).write_bytes(data)
    source = FolderSource(path=tmp_path / "crawl")
    parts = source.parts(source.items()[0], 10_000)
    assert len(parts) > 3 if kind != "whole" else len(parts) == 1
    assert sum(part.part_size for part in parts) == len(data)
    settings = CorpusSettings(sources=[source], filters=[], min_bytes=1000, near_duplicates={"enabled": False})
    card, _ = build_corpus(settings, tmp_path / "out", executor=ProcessPool(1), console=Console(quiet=True))
    documents = [*read_documents(tmp_path / "out", "train"), *read_documents(tmp_path / "out", "validation")]
    assert {d.url for d in documents} == {f"http://pages.example/{number}" for number in range(len(texts))}
    assert len({d.id for d in documents}) == len(documents)
    assert not any("duplicate" in reason for reason in card["sources"][0]["drops"])
    assert card["sources"][0]["files"] == 1
    assert all(d.date.startswith("2026-01-0") for d in documents)


def test_other_files_with_the_suffix_are_not_split(tmp_path: Path) -> None:
    (tmp_path / "notes.warc").write_bytes(b"These are notes about WARC/1.0 files.\n" * 2000)
    source = FolderSource(path=tmp_path)
    assert len(source.parts(source.items()[0], 10_000)) == 1
