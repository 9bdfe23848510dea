"""Read WARC and WET files one record at a time.

Reading can start at any position of a file. Damaged parts are skipped.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, UnknownFormatError, Unreadable
from groundup.corpus.formats.detect import detect
from groundup.corpus.formats.html import MAX_PAGE_BYTES, page_text
from groundup.corpus.html import decode
from groundup.corpus.streams import MEBIBYTE

NO_PAGE = "not a page"
_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_PLAIN = b"WARC/"
_GAP = b"\r\n\r\n"  # separator between two records
_PROBE_BYTES = 512  # number of bytes to check at the start of a compressed record

# Media types to skip. For other media types, the format is detected from the content, because servers often declare a
# wrong type.
_NO_DOCUMENTS = ("image/", "audio/", "video/", "font/", "model/")
_NO_TEXTS = ("css", "javascript", "ecmascript", "json", "xml", "wasm", "font", "x-shockwave-flash")


def read_warc(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the pages in a web archive: HTTP responses, resources, and extracted texts (WET).

    After a damaged record, reading continues at the next readable record. If the file is split into parts, only the
    records that start between `reading.start` and `reading.end` are yielded.
    """
    position: int | None = reading.start
    if not stream.seekable():
        yield from _records(path, cast(BinaryIO, _ForwardStream(stream)), reading, [0])
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
    """Return whether reading an archive can start at any record.

    Reading can start at any record if the archive is not compressed, or if each record is compressed separately, as web
    crawlers do. A file that is compressed as a whole must be read from the start.
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


class _ForwardStream:
    """Wrapper that adds `tell` and forward `seek` to a stream that is not seekable. fastwarc requires both methods."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = cast(io.BufferedIOBase, stream)
        self._position = 0

    def read(self, count: int = -1) -> bytes:
        data = self._stream.read1(count)  # read() would discard the data before a damaged part
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
            raise ValueError(f"the record declares {record.content_length} bytes, too many to read")
        reading.budget.spend(record.content_length)
        name = (record.record_id or "").strip("<>").removeprefix("urn:uuid:") or str(reached[0])
        yield from _record(f"{path}@{name}", record, record.record_type == WarcRecordType.conversion, reading)


def _record(origin: str, record: Any, is_text: bool, reading: ReaderContext) -> Found:
    from fastwarc.warc import WarcRecordType

    headers, http = record.headers, record.http_headers
    if record.record_type == WarcRecordType.revisit:
        yield Unreadable(origin, NO_PAGE, "revisit record, because the page has not changed")
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
    data = record.reader.read(MAX_PAGE_BYTES + 1)
    if len(data) > MAX_PAGE_BYTES:
        yield Unreadable(origin, "too large", f"more than {MAX_PAGE_BYTES // MEBIBYTE} MiB in one page")
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
    """Return the position of the first record at or after `start`, or None."""
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
    """Yield each position from `start` on that may be the start of a record, and the bytes at this position."""
    at = max(0, start - len(_GAP))
    stream.seek(at)
    window = b"" if at or start else _GAP  # adds a separator, which is missing before the first record of a file
    at -= len(window)
    while block := stream.read(MEBIBYTE):
        window += block
        plain = [offset + len(_GAP) for offset in _find_all(window, _GAP + _PLAIN)]
        for offset in sorted(_find_all(window, _GZIP) + _find_all(window, _ZSTD) + plain):
            whole = offset + _PROBE_BYTES <= len(window) or len(block) < MEBIBYTE
            if whole and at + offset >= start:
                yield at + offset, window[offset : offset + _PROBE_BYTES]
        seen = max(0, len(window) - _PROBE_BYTES - len(_GAP) + 1)
        at, window = at + seen, window[seen:]


def _find_all(data: bytes, pattern: bytes) -> list[int]:
    found, at = [], data.find(pattern)
    while at >= 0:
        found.append(at)
        at = data.find(pattern, at + 1)
    return found
