"""WARC files: pages with URLs and dates, parts, and recovery after damage."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from groundup.corpus.formats import Extracted, Unreadable, extract
from groundup.corpus.records import RecordOptions
from groundup.corpus.sources.base import Item

SHARED = Path(__file__).resolve().parents[4] / "shared/data/web"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not here")


@dataclass
class Found:
    texts: dict[str, Extracted] = field(default_factory=dict)  # by URL
    failures: list[Unreadable] = field(default_factory=list)


def read(data: bytes, name: str = "crawl.warc.gz", *, path: Path, start: int = 0, end: int | None = None) -> Found:
    file = path / name
    file.write_bytes(data)
    item = Item(name, len(data), start=start, end=end)
    return collect(extract(item, lambda: file.open("rb"), RecordOptions(extraction="fast"), None))


def collect(found: Iterator[Extracted | Unreadable]) -> Found:
    result = Found()
    for each in found:
        if isinstance(each, Extracted):
            result.texts[each.url] = each
        else:
            result.failures.append(each)
    return result


def page(word: str) -> bytes:
    sentence = f"The {word} stood at the river for a day, and then it went on. "
    return f"<html><body><p>{sentence * 5}</p></body></html>".encode()


def record(
    name: str, body: bytes | None = None, *, length: int | None = None, kind: str = "text/html", status: str = "200 OK"
) -> bytes:
    payload = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n".encode() + (page(name) if body is None else body)
    return (
        (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{name}>\r\nWARC-Target-URI: http://e.org/{name}\r\n"
            f"WARC-Date: 2021-02-03T04:05:06Z\r\nContent-Type: application/http; msgtype=response\r\n"
            f"Content-Length: {len(payload) if length is None else length}\r\n\r\n"
        ).encode()
        + payload
        + b"\r\n\r\n"
    )


def test_pages_have_a_url_and_a_date(tmp_path: Path) -> None:
    (heron,) = read(gzip.compress(record("heron")), path=tmp_path).texts.values()
    assert heron.text.startswith("The heron stood at the river")
    assert (heron.url, heron.date) == ("http://e.org/heron", "2021-02-03T04:05:06Z")
    assert heron.origin == "crawl.warc.gz@heron"


def test_other_records_are_counted(tmp_path: Path) -> None:
    found = read(
        record("gone", status="404 Not Found") + record("logo", b"\x89PNG", kind="image/png") + record("heron"),
        "crawl.warc",
        path=tmp_path,
    )
    assert [(failure.reason, failure.sample) for failure in found.failures] == [
        ("not a page", "status 404"),
        ("not a page", "image/png"),
    ]
    assert list(found.texts) == ["http://e.org/heron"]


def test_other_formats_are_read(tmp_path: Path) -> None:
    plain = b"A letter. " * 40
    found = read(
        record("letter", plain, kind="text/plain") + record("b.html", kind="application/x-unknown"),
        "c.warc",
        path=tmp_path,
    )
    assert found.texts["http://e.org/letter"].text == plain.decode()
    assert found.texts["http://e.org/b.html"].text.startswith("The b.html stood")


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("length", [40, 5_000, 10**18, 0])
def test_a_record_with_a_wrong_length_is_skipped(tmp_path: Path, length: int, compress: bool) -> None:
    records = [record("heron"), record("liar", length=length), record("otter")]
    data = b"".join(map(gzip.compress, records)) if compress else b"".join(records)
    found = read(data, path=tmp_path)
    assert {"http://e.org/heron", "http://e.org/otter"} <= set(found.texts)
    assert "damaged" in [failure.reason for failure in found.failures]


def test_reading_continues_after_damage(tmp_path: Path) -> None:
    parts = [gzip.compress(record(name)) for name in ("heron", "otter", "mole", "stork")]
    hit = bytearray(parts[1])
    hit[40:60] = bytes(20)
    found = read(parts[0] + bytes(hit) + b"no gzip at all" + parts[2] + parts[3][:-30], path=tmp_path)
    assert {"http://e.org/heron", "http://e.org/mole"} <= set(found.texts)
    assert found.failures and {failure.reason for failure in found.failures} == {"damaged"}


def test_a_bomb_is_skipped(tmp_path: Path) -> None:
    bomb = gzip.compress(record("bomb", b"<p>" + bytes(100 << 20)), 1)
    found = read(gzip.compress(record("heron")) + bomb + gzip.compress(record("otter")), path=tmp_path)
    assert list(found.texts) == ["http://e.org/heron", "http://e.org/otter"]
    assert len(found.failures) == 1


@pytest.mark.parametrize("compress", [True, False])
def test_parts_of_a_file_cover_each_record_once(tmp_path: Path, compress: bool) -> None:
    names = [f"bird-{number}" for number in range(60)]
    data = b"".join(gzip.compress(record(name)) if compress else record(name) for name in names)
    cuts = [0, 1, 2, 300, len(data) // 3, len(data) // 2, len(data) - 3, len(data)]
    seen = [
        address.rpartition("/")[2]
        for start, end in pairwise(cuts)
        for address in read(data, path=tmp_path, start=start, end=end).texts
    ]
    assert seen == names


def test_a_forward_only_stream(tmp_path: Path) -> None:
    class Forwards(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            return self.data.readinto(buffer)

    data = gzip.compress(record("heron")) + gzip.compress(record("otter"))[:-40]
    item = Item("crawl.warc.gz", len(data))
    opened = lambda: io.BufferedReader(Forwards(data))  # noqa: E731
    found = collect(extract(item, opened, RecordOptions(extraction="fast"), None))
    assert "http://e.org/heron" in found.texts
    assert [failure.reason for failure in found.failures] == ["damaged"]


@needs_data
def test_a_sample_of_common_crawl(tmp_path: Path) -> None:
    for name in ("whirlwind.warc.gz", "whirlwind.warc.wet.gz"):
        (wiki,) = read((SHARED / name).read_bytes(), name, path=tmp_path).texts.values()
        assert wiki.url == "https://an.wikipedia.org/wiki/Escopete"
        assert wiki.date == "2024-05-18T01:58:10Z"
        assert "Escopete" in wiki.text


@needs_data
def test_irregularities_of_real_archives(tmp_path: Path) -> None:
    """Invalid chunks, wrong lengths, URLs with spaces, the older format, and a truncated file."""
    texts, failures = set(), Counter()
    for path in sorted(SHARED.glob("warcio/*")):
        found = read(path.read_bytes(), path.name, path=tmp_path)
        texts |= {extracted.text[:50] for extracted in found.texts.values()}
        failures.update(failure.reason for failure in found.failures)
    assert "This domain is established to be used for illustra" in texts
    assert set(failures) <= {
        "not a page", "damaged", "unsupported format .log", "unsupported format: ARC, the older web archive",
    }  # fmt: skip
