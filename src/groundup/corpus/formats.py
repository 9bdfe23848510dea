"""Bytes to texts: compression, encodings, and the formats that people keep text in."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar

from groundup.corpus.record_files import RECORD_READERS, Record, Unreadable
from groundup.corpus.records import RecordRules, outline, texts
from groundup.corpus.sources.base import Format, Item, Opener
from groundup.corpus.streams import (
    COMPRESSED,
    DAMAGED,
    MEBIBYTE,
    BombError,
    TooLargeError,
    decompressed,
    detect_encoding,
    looks_binary,
    read_whole,
)

__all__ = ["Extracted", "Record", "Unreadable", "extract", "format_of", "read_records"]

NO_TEXT = "record without text"
UNSUPPORTED = "unsupported format"
_SUFFIXES: dict[str, Format] = {
    "": "text", ".txt": "text", ".text": "text", ".rst": "text",
    ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip

_SUFFIX = re.compile(r"\.[^\W\d][\w+~-]*")

BLOCK = 8 * MEBIBYTE  # characters of plain text handled at a time
_NESTING_LIMIT = 512  # of HTML elements, as in browsers: the time to find the main content grows with its square
_TOO_DEEP = ">".join("*" * (_NESTING_LIMIT + 1))


@dataclass(frozen=True, slots=True)
class Extracted:
    """A raw text and where it was found; `field` is the path to it in its record, where nobody had told that."""

    origin: str
    text: str
    field: str = ""


Found = TypeVar("Found")


def format_of(path: str) -> Format | None:
    """The format that a file's suffix (under .gz, .zst, .bz2) stands for, or None."""
    return _SUFFIXES.get(_suffix(path))


def _suffix(path: str) -> str:
    stem = path[: path.rindex(".")] if path.lower().endswith(COMPRESSED) else path
    suffix = PurePosixPath(stem).suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""  # "Chapter 1. Intro" has none


def extract(item: Item, opener: Opener, rules: RecordRules, format: Format | None) -> Iterator[Extracted | Unreadable]:
    """Read all texts of one file.

    Nothing that a file contains raises: damaged, oversized, binary and unknown files come out as
    `Unreadable`, after whatever records came before the damage.
    """

    def read(kind: Format, path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
        if kind in RECORD_READERS:
            return _texts_of(path, RECORD_READERS[kind](path, stream, rules.records), rules)
        return _TEXT_READERS[kind](path, stream)

    yield from _opened(item, opener, format, read)


def read_records(
    item: Item, opener: Opener, records: str | None, format: Format | None
) -> Iterator[Record | Unreadable]:
    """Read all records of one file of a table format (JSON, JSONL, CSV, TSV, Parquet); raises as little as `extract`.

    Args:
        records: path to the records inside a JSON value (see `SourceConfig`).
    """

    def read(kind: Format, path: str, stream: BinaryIO) -> Iterator[Record | Unreadable]:
        if kind not in RECORD_READERS:
            return iter([Unreadable(path, f"{kind} is no table")])
        return RECORD_READERS[kind](path, stream, records)

    yield from _opened(item, opener, format, read)


def _opened(
    item: Item, opener: Opener, format: Format | None, read: Callable[[Format, str, BinaryIO], Iterator[Found]]
) -> Iterator[Found | Unreadable]:
    path = item.path.encode("utf-8", "replace").decode()  # names on disk need not be valid Unicode
    if item.refused:
        yield Unreadable(path, item.refused)
        return
    kind = format or format_of(path)
    if kind is None:
        yield Unreadable(path, f"{UNSUPPORTED} {_suffix(path)}")
        return
    try:
        with opener() as raw, decompressed(item.path, item.size, raw) as stream:
            yield from read(kind, path, stream)
    except BombError:
        yield Unreadable(path, "decompression bomb")
    except TooLargeError as error:
        yield Unreadable(path, "too large", str(error))
    except RecursionError:
        yield Unreadable(path, "too deeply nested")
    except RuntimeError as error:  # zipfile's word for a password, and (as a subclass) for an unknown method
        yield Unreadable(path, "encrypted or unknown compression", str(error))
    except PermissionError:
        yield Unreadable(path, "permission denied")
    except DAMAGED as error:
        yield Unreadable(path, "damaged", f"{type(error).__name__}: {error}"[:200])


def _text_blocks(stream: BinaryIO) -> Iterator[str]:
    """Decode a text in blocks cut at paragraphs, so that a file of any size needs little memory."""
    head = stream.read(BLOCK)
    if looks_binary(head[:8192]):
        raise _BinaryError
    decoder = codecs.getincrementaldecoder(detect_encoding(head))("replace")
    pending, chunk = "", head
    while chunk:
        pending += decoder.decode(chunk)
        if len(pending) >= BLOCK:
            cut = next((at for mark in ("\n\n", "\n", " ") if (at := pending.rfind(mark)) > 0), len(pending))
            yield pending[:cut]
            pending = pending[cut:]
        chunk = stream.read(BLOCK)
    yield pending + decoder.decode(b"", final=True)


class _BinaryError(Exception):
    pass


def _read_text(path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
    try:
        for number, block in enumerate(_text_blocks(stream)):
            yield Extracted(path if number == 0 else f"{path}+{number}", block)
    except _BinaryError:
        yield Unreadable(path, "binary")


_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)


def _read_markdown(path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
    for found in _read_text(path, stream):
        if isinstance(found, Extracted):
            found = Extracted(found.origin, _FRONT_MATTER.sub("", found.text.replace("\r\n", "\n")))
        yield found


def _read_html(path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    data = read_whole(stream)
    if looks_binary(data[:8192]):
        yield Unreadable(path, "binary")
        return
    page = HTMLTree.parse(data.decode(detect_encoding(data, html=True), "replace"))
    if page.document is not None and page.document.query_selector(_TOO_DEEP):
        yield Unreadable(path, "too deeply nested")
        return
    yield Extracted(path, extract_plain_text(page, main_content=True, alt_texts=False, links=False))


def _render(text: str) -> str:
    """A record's text with its tags rendered; its own paragraphs stay, which HTML would run together."""
    from resiliparse.extract.html2text import extract_plain_text

    paragraphs = (extract_plain_text(part, alt_texts=False, links=False) for part in text.split("\n\n"))
    return "\n\n".join(paragraphs)


def _texts_of(path: str, found: Iterator[Record | Unreadable], rules: RecordRules) -> Iterator[Extracted | Unreadable]:
    failed: list[Unreadable] = []
    origins: deque[str] = deque()

    def values() -> Iterator[Any]:
        for each in found:
            if isinstance(each, Unreadable):
                failed.append(each)
            else:
                origins.append(each.origin)
                yield each.value

    for text, record, field in texts(values(), rules):
        origin = origins.popleft()
        text = _render(text) if rules.html and "<" in text else text
        if text.strip():
            yield Extracted(origin, text, field)
        else:
            yield Unreadable(origin, NO_TEXT, outline(record))
    yield from failed


_TEXT_READERS: dict[Format, Callable[[str, BinaryIO], Iterator[Extracted | Unreadable]]] = {
    "text": _read_text,
    "markdown": _read_markdown,
    "html": _read_html,
}
