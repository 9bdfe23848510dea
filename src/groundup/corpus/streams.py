"""Safe reading of input streams, with limits for decompression and with detection of text encodings."""

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
MAX_DOCUMENT_BYTES = 256 * MEBIBYTE  # maximum file size for formats that are parsed in memory, such as HTML and JSON
MAX_LINE_BYTES = 64 * MEBIBYTE
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
# The compression ratio of real text is rarely above 20. A decompression bomb, such as a deflate stream of zeros,
# reaches a ratio of 1032.
MAX_COMPRESSION_RATIO = 200
MIN_BOMB_BYTES = 64 * MEBIBYTE

# Exceptions that the standard library, zstandard and pyarrow raise for damaged input.
READ_ERRORS = (
    EOFError, LookupError, OSError, OverflowError, ValueError,
    csv.Error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, zstandard.ZstdError,
)  # fmt: skip


_ISO_2022 = re.compile(rb"\x1b(\$[@B]|\$\)C)")  # 7-bit encodings of old Japanese and Korean mail

# Unicode categories of control characters, unassigned characters, private-use characters and surrogates.
_NON_TEXT_CATEGORIES = {"Cc", "Cn", "Co", "Cs"}
_BLANKS = str.maketrans("\t\n\r\f", " " * 4)
_BYTES_PER_NUL = 500  # A text file may contain at most one NUL byte per 500 bytes.
_CAPITAL_INSIDE = re.compile("[a-z][À-ÖØ-ÞŒŠŸŽ]")


class DecompressionBombError(ValueError):
    """A compressed file expands to far more bytes than compressed text would."""


class TooLargeError(ValueError):
    """A document or line is larger than the limit for parsing in memory."""


class DecompressionLimit:
    """The number of bytes that may still be decompressed from a compressed file and the files that it contains.

    Args:
        stored_bytes: Size of the compressed file.
    """

    def __init__(self, stored_bytes: int) -> None:
        self.left = max(MIN_BOMB_BYTES, MAX_COMPRESSION_RATIO * stored_bytes)

    def spend(self, count: int) -> None:
        """Subtract `count` bytes from the limit. If fewer than `count` bytes remain, raise `DecompressionBombError`."""
        self.left -= count
        if self.left < 0:
            raise DecompressionBombError("compression ratio too high")


class GuardedStream(io.RawIOBase):
    """A readable stream that raises `DecompressionBombError` if the compression ratio is too high.

    Args:
        stream: The decompressed stream.
        budget: Limit for the total number of decompressed bytes.
        stored: The compressed file, or None if its position is not known. If the position is known, a decompression
            bomb is detected earlier.
    """

    def __init__(self, stream: io.BufferedIOBase, budget: DecompressionLimit, stored: BinaryIO | None = None) -> None:
        self._stream = stream
        self._budget = budget
        self._stored = stored
        self._num_read = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and subtract the number of bytes from the limit."""
        data = self._stream.read1(len(buffer))  # read() would discard the intact data before a damaged part.
        self._budget.spend(len(data))
        self._num_read += len(data)
        if self._stored is not None and self._num_read > bomb_limit(self._stored.tell()):
            raise DecompressionBombError("compression ratio too high so far")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close this stream and the underlying stream."""
        self._stream.close()
        super().close()


def limited_stream(stream: BinaryIO, budget: DecompressionLimit, stored: BinaryIO | None = None) -> BinaryIO:
    """Wrap a decompressed stream in a buffered `GuardedStream`."""
    return io.BufferedReader(GuardedStream(cast(io.BufferedIOBase, stream), budget, stored), MEBIBYTE)


def bomb_limit(stored_bytes: int) -> int:
    """Return the maximum decompressed size of a compressed file, in bytes."""
    return DecompressionLimit(stored_bytes).left


def decompressed(head: bytes, stream: BinaryIO, budget: DecompressionLimit) -> BinaryIO | None:
    """Decompress a stream if its first bytes show that it is compressed with gzip, bzip2, Zstandard or xz.

    Args:
        head: First bytes of the stream.
        stream: The whole stream.
        budget: Limit for the number of decompressed bytes.

    Returns:
        The decompressed stream, or None if the stream is not compressed. Reading the decompressed stream raises
        `DecompressionBombError` if the limit is exceeded.
    """
    inner: Any
    if head.startswith(b"\x1f\x8b"):
        inner = gzip.GzipFile(fileobj=stream)
    elif re.match(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", head):
        inner = bz2.BZ2File(stream)
    elif head.startswith(b"\x28\xb5\x2f\xfd") or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", head):
        inner = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    elif head.startswith(b"\xfd7zXZ\0"):
        inner = lzma.LZMAFile(stream)  # noqa: SIM115 (The returned stream closes it.)
    else:
        return None
    return limited_stream(inner, budget, stream if is_file(stream) else None)


class _PrefixedStream(io.RawIOBase):
    """A stream of which the first bytes were already read.

    If reading the first bytes raised an error, the stream raises the same error after these bytes.
    """

    def __init__(self, head: bytes, stream: io.BufferedIOBase, damage: Exception | None) -> None:
        self._head = io.BytesIO(head)
        self._stream = stream
        self._damage = damage

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the bytes that were already read, and then the rest of the stream."""
        data = self._head.read(len(buffer))
        if not data and self._damage:
            raise self._damage
        data = data or self._stream.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def is_file(stream: BinaryIO) -> bool:
    """Return whether a stream is a seekable file on disk."""
    try:
        stream.fileno()
    except (AttributeError, OSError):
        return False
    return stream.seekable()


def with_head(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """Return the first MiB of a stream, and a stream of the whole content.

    If reading the first MiB fails, the returned stream raises the error at the position where it occurred.
    """
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
    return bytes(head), cast(BinaryIO, io.BufferedReader(_PrefixedStream(bytes(head), source, damage), MEBIBYTE))


def text_lines(stream: BinaryIO, stored_bytes: int) -> Iterator[str]:
    """Yield the non-empty lines of a UTF-8 text, without surrounding white space. The text may be compressed."""
    head, stream = with_head(stream)
    with decompressed(head, stream, DecompressionLimit(stored_bytes)) or stream as text_stream:
        while line := text_stream.readline(MAX_LINE_BYTES):
            if text := line.decode("utf-8", "replace").strip():
                yield text


def as_seekable(stream: BinaryIO) -> BinaryIO:
    """Return the stream if it is a seekable file, otherwise a temporary copy on disk."""
    if is_file(stream):
        return stream
    whole = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 (The caller closes it.)
    shutil.copyfileobj(stream, whole, MEBIBYTE)
    whole.seek(0)
    return whole


def read_whole(stream: BinaryIO) -> bytes:
    """Return the content of a file. If the file is larger than `MAX_DOCUMENT_BYTES`, raise `TooLargeError`."""
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise TooLargeError(f"more than {MAX_DOCUMENT_BYTES // MEBIBYTE} MiB in one document")
    return data


def looks_binary(head: bytes) -> bool:
    """Return whether a file is binary. A binary file has more than a few NUL bytes, or many control characters."""
    # The byte order mark of UTF-32 LE begins with the byte order mark of UTF-16 LE.
    if head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return False
    if _utf16_without_bom(head):
        return False
    controls = sum(head.count(byte) for byte in range(32) if byte not in b"\t\n\r\f\x0e\x0f\x1b")
    nuls = head.count(0)
    return (
        nuls > max(1, len(head) // _BYTES_PER_NUL)
        or controls > len(head) // 50
        or head.startswith((b"%PDF-", b"{\\rtf"))
    )


def _utf16_without_bom(head: bytes) -> str:
    """Return the name of the encoding if the text is UTF-16 without a byte order mark, otherwise "".

    Some Windows programs write UTF-16 files without a byte order mark. In such a file, almost all NUL bytes are either
    at even or at odd offsets, and the decoded text does not contain control or private-use characters.
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
    return name if not (kinds.keys() & _NON_TEXT_CATEGORIES) and letters * 2 > len(text) and " " in text else ""


def detect_encoding(head: bytes, *, html: bool = False) -> str:
    """Detect the encoding of a text.

    If the text has a byte order mark, the mark determines the encoding. If there is no mark and the bytes are valid
    UTF-8, the encoding is UTF-8. All other encodings are detected by character statistics.

    Args:
        head: First bytes of the text.
        html: Whether to use the encoding that an HTML page declares.

    Returns:
        The name of the encoding in Python.
    """
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    if b"\0" in head[:8192] and (name := _utf16_without_bom(head)):
        return name
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(head)  # The last character may be incomplete.
        if (shift := _ISO_2022.search(head)) and head.isascii():
            return "iso2022_kr" if shift[1].endswith(b"C") else "iso2022_jp_2"
        return "utf-8"
    except UnicodeDecodeError:
        from resiliparse.parse.encoding import detect_encoding as detect_by_statistics

        found = str(detect_by_statistics(head, from_html_meta=html) or "cp1252")
        return found if found != "utf-8" or _mostly_utf8(head) else _detect_8_bit(head)


def _mostly_utf8(head: bytes) -> bool:
    """Return whether a text with some invalid bytes should be decoded as UTF-8 and not with an 8-bit encoding."""
    text = head.decode("utf-8", "replace")
    lost = text.count("\ufffd")
    return sum(not character.isascii() for character in text) > 2 * lost


def _detect_8_bit(head: bytes) -> str:
    """Return Windows-1252 or Mac Roman, depending on which encoding gives fewer implausible characters."""
    from ftfy.badness import badness

    sample = b"\n".join(line for line in head.split(b"\n") if not line.isascii())[: MEBIBYTE // 16]

    def count_implausible(encoding: str) -> int:
        text = sample.decode(encoding, "replace")
        return text.count("\ufffd") + len(_CAPITAL_INSIDE.findall(text)) + badness(text)

    return min(("cp1252", "mac_roman"), key=count_implausible)
