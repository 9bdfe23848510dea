"""Bytes to texts: compression, encodings, and the formats that people keep text in, one a module here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, TypeVar

from groundup.corpus.formats.base import Extracted, Reader, Reading, Unreadable
from groundup.corpus.formats.html import read_html
from groundup.corpus.formats.plain import read_markdown, read_text
from groundup.corpus.formats.tables import NO_TEXT, RECORD_READERS, Record, table_reader
from groundup.corpus.records import RecordRules
from groundup.corpus.sources.base import Format, Item, Opener
from groundup.corpus.streams import COMPRESSED, DAMAGED, BombError, TooLargeError, decompressed

__all__ = ["NO_TEXT", "UNSUPPORTED", "Extracted", "Record", "Unreadable", "extract", "format_of", "read_records"]

UNSUPPORTED = "unsupported format"
_SUFFIXES: dict[str, Format] = {
    "": "text", ".txt": "text", ".text": "text", ".rst": "text",
    ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
_READERS: dict[Format, Reader] = {
    "text": read_text,
    "markdown": read_markdown,
    "html": read_html,
    **{kind: table_reader(reader) for kind, reader in RECORD_READERS.items()},
}

_SUFFIX = re.compile(r"\.[^\W\d][\w+~-]*")
_Found = TypeVar("_Found")


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

    def inside(path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
        return _opened(Item(path, 0), lambda: stream, None, read)

    def read(kind: Format, path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
        return _READERS[kind](path, stream, Reading(rules, inside))

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
    item: Item, opener: Opener, format: Format | None, read: Callable[[Format, str, BinaryIO], Iterator[_Found]]
) -> Iterator[_Found | Unreadable]:
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
