"""Web archives: WARC and WET files, one record at a time, at any place of the file, whatever is damaged in between."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, UnknownFormatError, Unreadable
from groundup.corpus.formats.detect import detect
from groundup.corpus.formats.html import PAGE_LIMIT, page_text
from groundup.corpus.html import decode
from groundup.corpus.streams import MEBIBYTE

NO_PAGE = "not a page"
_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_PLAIN = b"WARC/"
_GAP = b"\r\n\r\n"  # between records
_ENOUGH = 512  # bytes of a compressed record that tell whether it is one
# What web servers give beside documents. The content decides about the rest, which servers often name wrongly.
_NO_DOCUMENTS = ("image/", "audio/", "video/", "font/", "model/")
_NO_TEXTS = ("css", "javascript", "ecmascript", "json", "xml", "wasm", "font", "x-shockwave-flash")


def read_warc(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """The pages of an archive: responses, resources, and texts that others took from pages (WET).

    After damage it goes on with the next record that can be found. Of a file that is worked on in parts
    (`reading.start`, `reading.end`), the records that begin in that part.
    """
    position: int | None = reading.start
    if not stream.seekable():
        yield from _records(path, cast(BinaryIO, _Forwards(stream)), reading, [0])
        return
    if reading.start:
        position = _next_record(stream, reading.start)
    while position is not None and (reading.end is None or position < reading.end):
        reached = [position]
        stream.seek(position)
        try:
            yield from _records(path, stream, reading, reached)
            return
        except (OSError, ValueError) as error:
            yield Unreadable(f"{path}@{reached[0]}", "damaged", f"{type(error).__name__}: {error}"[:200])
            position = _next_record(stream, reached[0] + 1)


def by_record(head: bytes) -> bool:
    """Whether the archive that begins so can be entered at any record: plain, or each record compressed by itself.

    Crawlers write it so. A file that somebody compressed as a whole must be read from its beginning.
    """
    if head.startswith(_PLAIN):
        return True
    member = zlib.decompressobj(31)
    try:
        begins = member.decompress(head, 16).startswith(_PLAIN)
        while begins and member.unconsumed_tail and not member.eof:
            member.decompress(member.unconsumed_tail, MEBIBYTE)
    except zlib.error:
        return False
    return begins and member.eof and member.unused_data.startswith(_GZIP)


class _Forwards:
    """A stream that cannot be entered anywhere: fastwarc asks where it is, and must not be told so by an error."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = cast(io.BufferedIOBase, stream)
        self._position = 0

    def read(self, count: int = -1) -> bytes:
        data = self._stream.read1(count)  # read() would lose what came before the damage
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        target = offset + (self._position if whence == 1 else 0)
        if whence != 2 and target >= self._position:
            while target > self._position and self.read(min(target - self._position, MEBIBYTE)):
                pass
        return self._position


def _records(path: str, stream: BinaryIO, reading: ReaderContext, reached: list[int]) -> Found:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    kinds = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion | WarcRecordType.revisit
    for record in ArchiveIterator(stream, record_types=kinds, parse_http=True, auto_decode="all", fsspec_args=False):
        reached[0] = record.stream_pos
        if reading.end is not None and reached[0] >= reading.end:
            return
        if record.content_length > reading.budget.left:
            raise ValueError(f"a record that says to be {record.content_length} bytes long")
        reading.budget.spend(record.content_length)
        name = (record.record_id or "").strip("<>").removeprefix("urn:uuid:") or str(reached[0])
        yield from _record(f"{path}@{name}", record, record.record_type == WarcRecordType.conversion, reading)


def _record(origin: str, record: Any, is_text: bool, reading: ReaderContext) -> Found:
    from fastwarc.warc import WarcRecordType

    headers, http = record.headers, record.http_headers
    if record.record_type == WarcRecordType.revisit:
        yield Unreadable(origin, NO_PAGE, "a page that has not changed")
        return
    if http is not None and http.status_code not in (None, 200):
        yield Unreadable(origin, NO_PAGE, f"status {http.status_code}")
        return
    declared = headers.get("WARC-Identified-Payload-Type") or record.http_content_type or headers.get("Content-Type")
    kind = (declared or "").split(";")[0].strip().lower()
    if kind.startswith(_NO_DOCUMENTS) or (kind.endswith(_NO_TEXTS) and kind != "application/xhtml+xml"):
        yield Unreadable(origin, NO_PAGE, kind)
        return
    expected = record.content_length
    data = record.reader.read(PAGE_LIMIT + 1)
    if len(data) > PAGE_LIMIT:
        yield Unreadable(origin, "too large", f"more than {PAGE_LIMIT // MEBIBYTE} MiB in one page")
        return
    encoded = http is not None and (http.get("Content-Encoding") or http.get("Transfer-Encoding"))
    if not encoded and len(data) < expected:
        raise ValueError(f"{expected - len(data)} bytes are missing")
    url = (headers.get("WARC-Target-URI") or "").strip("<>")
    date = str(headers.get("WARC-Date") or "")
    charset = record.http_charset
    if is_text:
        yield Extracted(origin, decode(data, "utf-8"), url=url, date=date)
    elif kind in ("text/html", "application/xhtml+xml"):
        yield page_text(origin, data, reading, url=url, date=date, encoding=charset)
    else:
        yield from _by_content(origin, data, reading, url, date, charset)


def _by_content(origin: str, data: bytes, reading: ReaderContext, url: str, date: str, charset: str | None) -> Found:
    name = origin + "/" + urlsplit(url).path.rpartition("/")[2]
    try:
        kind = detect(name, data[:MEBIBYTE])
    except UnknownFormatError:
        kind = None
    if kind == "html":
        yield page_text(origin, data, reading, url=url, date=date, encoding=charset)
    elif kind == "text":
        yield Extracted(origin, decode(data, charset), url=url, date=date)
    else:
        for found in reading.inside(name, io.BytesIO(data)):
            yield replace(found, url=url, date=date) if isinstance(found, Extracted) else found


def _next_record(stream: BinaryIO, start: int) -> int | None:
    """Where the first record at or after `start` begins; None where none does."""
    for position, head in _candidates(stream, start):
        if head.startswith(_GZIP):
            try:
                head = zlib.decompressobj(31).decompress(head, 16)
            except zlib.error:
                continue
        if head.startswith((_PLAIN, _ZSTD)):
            return position
    return None


def _candidates(stream: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """Each place at or after `start` that looks like the beginning of a record, and the bytes there."""
    at = max(0, start - len(_GAP))
    stream.seek(at)
    window = b"" if at or start else _GAP  # the first record has no gap before it
    at -= len(window)
    while block := stream.read(MEBIBYTE):
        window += block
        plain = [offset + len(_GAP) for offset in _all(window, _GAP + _PLAIN)]
        for offset in sorted(_all(window, _GZIP) + _all(window, _ZSTD) + plain):
            whole = offset + _ENOUGH <= len(window) or len(block) < MEBIBYTE
            if whole and at + offset >= start:
                yield at + offset, window[offset : offset + _ENOUGH]
        seen = max(0, len(window) - _ENOUGH - len(_GAP) + 1)
        at, window = at + seen, window[seen:]


def _all(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found
