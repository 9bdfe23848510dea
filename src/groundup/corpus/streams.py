"""Streams that can be trusted: decompression with a limit, damage under known names, encodings found out."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

MEBIBYTE = 1 << 20
WHOLE_FILE_LIMIT = 256 * MEBIBYTE  # HTML and JSON are parsed whole
LINE_LIMIT = 64 * MEBIBYTE
COMPRESSED = (".gz", ".zst", ".bz2")
# Text rarely compresses beyond 1:20; deflate can reach 1:1032 on a bomb of zeros.
BOMB_RATIO = 200
BOMB_FLOOR = 64 * MEBIBYTE

# What the decoders of the standard library, zstandard and pyarrow raise on damaged input.
DAMAGED = (
    EOFError, LookupError, OSError, OverflowError, ValueError,
    csv.Error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, zstandard.ZstdError,
)  # fmt: skip


_CAPITAL_INSIDE = re.compile("[a-z][À-ÖØ-ÞŒŠŸŽ]")


class BombError(ValueError):
    """More bytes came out of a compressed file than any real text would give."""


class TooLargeError(ValueError):
    """A document or a line that would not fit into memory."""


class GuardedStream(io.RawIOBase):
    """A readable stream that stops at the ratio of a decompression bomb (`BombError`)."""

    def __init__(self, stream: io.BufferedIOBase, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def readable(self) -> bool:
        """Always: this is a reader."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, counting against the limit."""
        data = self._stream.read1(len(buffer))  # read() would lose what came before the damage
        self._left -= len(data)
        if self._left < 0:
            raise BombError("compressed beyond all reason")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream underneath as well."""
        self._stream.close()
        super().close()


def bomb_limit(stored_bytes: int) -> int:
    """How many bytes a compressed file of this size may give."""
    return max(BOMB_FLOOR, BOMB_RATIO * stored_bytes)


def decompressed(path: str, stored_bytes: int, raw: BinaryIO) -> BinaryIO:
    """Undo the compression that the suffix of `path` names; a bomb raises `BombError` while it is read."""
    suffix = PurePosixPath(path).suffix.lower()
    inner: io.BufferedIOBase
    if suffix == ".gz":
        inner = gzip.GzipFile(fileobj=raw)
    elif suffix == ".bz2":
        inner = bz2.BZ2File(raw)
    elif suffix == ".zst":
        inner = cast(io.BufferedIOBase, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    else:
        return raw
    return io.BufferedReader(GuardedStream(inner, bomb_limit(stored_bytes)), MEBIBYTE)


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were already read, up to some damage perhaps."""

    def __init__(self, head: bytes, stream: io.BufferedIOBase, damage: Exception | None) -> None:
        self._head = io.BytesIO(head)
        self._stream = stream
        self._damage = damage

    def readable(self) -> bool:
        """Always: this is a reader."""
        return True

    def readinto(self, buffer: Any) -> int:
        """First what was read already, then the rest."""
        data = self._head.read(len(buffer))
        if not data and self._damage:
            raise self._damage
        data = data or self._stream.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def with_head(stream: BinaryIO) -> tuple[bytes, io.BufferedReader]:
    """The first MiB, to find out what a file is, and a stream of all of it; damage raises where the stream meets it."""
    source, head, damage = cast(io.BufferedIOBase, stream), bytearray(), None
    try:
        while len(head) < MEBIBYTE and (more := source.read1(MEBIBYTE - len(head))):
            head += more
    except DAMAGED as error:
        damage = error
    return bytes(head), io.BufferedReader(_Rejoined(bytes(head), source, damage), MEBIBYTE)


def read_whole(stream: BinaryIO) -> bytes:
    """All bytes of a file that is parsed whole; `TooLargeError` where they are too many."""
    data = stream.read(WHOLE_FILE_LIMIT + 1)
    if len(data) > WHOLE_FILE_LIMIT:
        raise TooLargeError(f"more than {WHOLE_FILE_LIMIT // MEBIBYTE} MiB in one document")
    return data


def looks_binary(head: bytes) -> bool:
    """Whether the beginning of a file is not text in any encoding: NUL bytes, or many control characters."""
    if head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # UTF-32's begins like UTF-16's
        return False
    controls = sum(head.count(byte) for byte in range(32) if byte not in b"\t\n\r\f\x1b")
    return b"\0" in head or controls > len(head) // 50 or head.startswith((b"%PDF-", b"{\\rtf"))


def detect_encoding(head: bytes, *, html: bool = False) -> str:
    """The encoding of a text that begins so: byte order mark, else UTF-8 if valid, else the likeliest."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(head)  # a character cut at the end is no error
        return "utf-8"
    except UnicodeDecodeError:
        from resiliparse.parse.encoding import detect_encoding as likeliest

        found = str(likeliest(head, from_html_meta=html) or "cp1252")
        return found if found != "utf-8" or _mostly_utf8(head) else _likelier_of_8_bits(head)


def _mostly_utf8(head: bytes) -> bool:
    """Whether a text that is not quite UTF-8 is better read as that, with some characters lost, than in 8 bits."""
    text = head.decode("utf-8", "replace")
    lost = text.count("\ufffd")
    return sum(not character.isascii() for character in text) > 2 * lost


def _likelier_of_8_bits(head: bytes) -> str:
    """Windows or old Mac: the one that gives the fewest characters that nobody writes."""
    from ftfy.badness import badness

    telling = b"\n".join(line for line in head.split(b"\n") if not line.isascii())[: MEBIBYTE // 16]

    def oddities(encoding: str) -> int:
        text = telling.decode(encoding, "replace")
        return text.count("\ufffd") + len(_CAPITAL_INSIDE.findall(text)) + badness(text)

    return min(("cp1252", "mac_roman"), key=oddities)
