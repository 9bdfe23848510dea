"""Streams that can be trusted: decompression with a limit, damage under known names, encodings found out."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import shutil
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import zstandard

MEBIBYTE = 1 << 20
MAX_DOCUMENT_BYTES = 256 * MEBIBYTE  # HTML and JSON are parsed whole
MAX_LINE_BYTES = 64 * MEBIBYTE
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
# Text rarely compresses beyond 1:20; deflate can reach 1:1032 on a bomb of zeros.
MAX_COMPRESSION_RATIO = 200
MIN_BOMB_BYTES = 64 * MEBIBYTE

# What the decoders of the standard library, zstandard and pyarrow raise on damaged input.
READ_ERRORS = (
    EOFError, LookupError, OSError, OverflowError, ValueError,
    csv.Error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, zstandard.ZstdError,
)  # fmt: skip


_ISO_2022 = re.compile(rb"\x1b(\$[@B]|\$\)C)")  # seven bits, so that it passes for ASCII; old Japanese and Korean mail
_ODD_KINDS = {"Cc", "Cn", "Co", "Cs"}  # of characters: controls, not assigned, private, halves of a pair
_BLANKS = str.maketrans("\t\n\r\f", " " * 4)
_MOST_NULS = 500  # one NUL in so many bytes is an accident of a program; binary files have more
_CAPITAL_INSIDE = re.compile("[a-z][À-ÖØ-ÞŒŠŸŽ]")


class DecompressionBombError(ValueError):
    """More bytes came out of a compressed file than any real text would give."""


class TooLargeError(ValueError):
    """A document or a line that would not fit into memory."""


class DecompressionLimit:
    """How many bytes may still come out of a compressed file, and out of the files inside of it, all together."""

    def __init__(self, stored_bytes: int) -> None:
        self.left = max(MIN_BOMB_BYTES, MAX_COMPRESSION_RATIO * stored_bytes)

    def spend(self, count: int) -> None:
        """Take `count` bytes off; raises `DecompressionBombError` where they are too many."""
        self.left -= count
        if self.left < 0:
            raise DecompressionBombError("compressed beyond all reason")


class GuardedStream(io.RawIOBase):
    """A readable stream that stops at the ratio of a decompression bomb (`DecompressionBombError`).

    Args:
        stored: the file that is decompressed, if it tells how far it was read: a bomb of megabytes is known by the
            first of them, not after the gigabytes that its size would allow.
    """

    def __init__(self, stream: io.BufferedIOBase, budget: DecompressionLimit, stored: BinaryIO | None = None) -> None:
        self._stream = stream
        self._budget = budget
        self._stored = stored
        self._given = 0

    def readable(self) -> bool:
        """Always: this is a reader."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, counting against the budget."""
        data = self._stream.read1(len(buffer))  # read() would lose what came before the damage
        self._budget.spend(len(data))
        self._given += len(data)
        if self._stored is not None and self._given > bomb_limit(self._stored.tell()):
            raise DecompressionBombError("compressed beyond all reason so far")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream underneath as well."""
        self._stream.close()
        super().close()


def limited_stream(stream: BinaryIO, budget: DecompressionLimit, stored: BinaryIO | None = None) -> BinaryIO:
    """A buffered stream of decompressed bytes that counts against the budget (see `GuardedStream`)."""
    return io.BufferedReader(GuardedStream(cast(io.BufferedIOBase, stream), budget, stored), MEBIBYTE)


def bomb_limit(stored_bytes: int) -> int:
    """How many bytes a compressed file of this size may give."""
    return DecompressionLimit(stored_bytes).left


def decompressed(head: bytes, stream: BinaryIO, budget: DecompressionLimit) -> BinaryIO | None:
    """Undo the compression that a stream's first bytes show (gzip, bzip2, Zstandard, xz); None if they show none.

    A bomb raises `DecompressionBombError` while it is read.
    """
    inner: Any
    if head.startswith(b"\x1f\x8b"):
        inner = gzip.GzipFile(fileobj=stream)
    elif re.match(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", head):
        inner = bz2.BZ2File(stream)
    elif head.startswith(b"\x28\xb5\x2f\xfd") or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", head):
        inner = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    elif head.startswith(b"\xfd7zXZ\0"):
        inner = lzma.LZMAFile(stream)  # noqa: SIM115 (closed with the stream around it)
    else:
        return None
    return limited_stream(inner, budget, stream if is_file(stream) else None)


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


def is_file(stream: BinaryIO) -> bool:
    """Whether a stream is a file on disk, which can be entered anywhere at no cost."""
    try:
        stream.fileno()
    except (AttributeError, OSError):
        return False
    return stream.seekable()


def with_head(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The first MiB, to find out what a file is, and a stream of all of it; damage raises where the stream meets it."""
    if is_file(stream):
        head_of_file = stream.read(MEBIBYTE)
        stream.seek(0)
        return head_of_file, stream
    source, head, damage = cast(io.BufferedIOBase, stream), bytearray(), None
    try:
        while len(head) < MEBIBYTE and (more := source.read1(MEBIBYTE - len(head))):
            head += more
    except READ_ERRORS as error:
        damage = error
    return bytes(head), cast(BinaryIO, io.BufferedReader(_Rejoined(bytes(head), source, damage), MEBIBYTE))


def text_lines(stream: BinaryIO, stored_bytes: int) -> Iterator[str]:
    """The lines of a UTF-8 text, compressed or not, without their ends and what is empty."""
    head, stream = with_head(stream)
    with decompressed(head, stream, DecompressionLimit(stored_bytes)) or stream as plain:
        while line := plain.readline(MAX_LINE_BYTES):
            if text := line.decode("utf-8", "replace").strip():
                yield text


def as_seekable(stream: BinaryIO) -> BinaryIO:
    """The bytes as a file that can be entered anywhere: the stream itself if it is one, else a temporary copy."""
    if is_file(stream):
        return stream
    whole = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 (closed by who reads it)
    shutil.copyfileobj(stream, whole, MEBIBYTE)
    whole.seek(0)
    return whole


def read_whole(stream: BinaryIO) -> bytes:
    """All bytes of a file that is parsed whole; `TooLargeError` where they are too many."""
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise TooLargeError(f"more than {MAX_DOCUMENT_BYTES // MEBIBYTE} MiB in one document")
    return data


def looks_binary(head: bytes) -> bool:
    """Whether the beginning of a file is not text in any encoding: some NUL bytes, or many control characters."""
    if head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # UTF-32's begins like UTF-16's
        return False
    if _unmarked_utf16(head):
        return False
    controls = sum(head.count(byte) for byte in range(32) if byte not in b"\t\n\r\f\x0e\x0f\x1b")
    nuls = head.count(0)
    return (
        nuls > max(1, len(head) // _MOST_NULS) or controls > len(head) // 50 or head.startswith((b"%PDF-", b"{\\rtf"))
    )


def _unmarked_utf16(head: bytes) -> str:
    """The name of UTF-16 that lacks its byte order mark, as some programs of Windows write it; "" for all else.

    Zeros stand at every other byte, in each blank at least, hardly between; and what is decoded has nothing odd.
    """
    head = head[:8192]
    low, high = head[::2].count(0), head[1::2].count(0)
    if min(low, high) * 4 > max(low, high) or (low + high) * 50 < len(head):
        return ""
    name = "utf-16-be" if low > high else "utf-16-le"
    try:
        text = codecs.getincrementaldecoder(name)().decode(head).translate(_BLANKS)
    except UnicodeDecodeError:
        return ""
    kinds = Counter(map(unicodedata.category, text))
    letters = sum(count for kind, count in kinds.items() if kind[0] in "LMZ")
    return name if not (kinds.keys() & _ODD_KINDS) and letters * 2 > len(text) and " " in text else ""


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
    if b"\0" in head[:8192] and (unmarked := _unmarked_utf16(head)):
        return unmarked
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(head)  # a character cut at the end is no error
        if (shift := _ISO_2022.search(head)) and head.isascii():
            return "iso2022_kr" if shift[1].endswith(b"C") else "iso2022_jp_2"
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
