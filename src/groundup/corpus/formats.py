"""Bytes to texts: compression, encodings, and the formats that people keep text in."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar

from groundup.corpus.records import RecordRules, split_records, texts
from groundup.corpus.sources.base import Format, Item, Opener
from groundup.corpus.streams import (
    COMPRESSED,
    DAMAGED,
    MEBIBYTE,
    BombError,
    Rejoined,
    decompressed,
    detect_encoding,
    looks_binary,
)

_SUFFIXES: dict[str, Format] = {
    "": "text", ".txt": "text", ".text": "text", ".rst": "text",
    ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip

BLOCK = 8 * MEBIBYTE  # characters of plain text handled at a time
WHOLE_FILE_LIMIT = 256 * MEBIBYTE  # HTML and JSON are parsed whole
LINE_LIMIT = 64 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file, or a record of one, that gave no text: where it was and a short reason to count it under."""

    origin: str
    reason: str
    sample: str = ""


@dataclass(frozen=True, slots=True)
class Extracted:
    """A raw text and where it was found."""

    origin: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a table file and where it was found."""

    origin: str
    value: Any


Found = TypeVar("Found")


RecordReader = Callable[[str, BinaryIO, str | None], Iterator[Record | Unreadable]]


class _TooLargeError(ValueError):
    pass


def format_of(path: str) -> Format | None:
    """The format that a file's suffix (under .gz, .zst, .bz2) stands for, or None."""
    suffix = PurePosixPath(_stem(path)).suffix.lower()
    return _SUFFIXES.get(suffix)


def _stem(path: str) -> str:
    return path[: path.rindex(".")] if path.lower().endswith(COMPRESSED) else path


def extract(item: Item, opener: Opener, rules: RecordRules, format: Format | None) -> Iterator[Extracted | Unreadable]:
    """Read all texts of one file.

    Nothing that a file contains raises: damaged, oversized, binary and unknown files come out as
    `Unreadable`, after whatever records came before the damage.
    """

    def read(kind: Format, path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
        if kind in _RECORD_READERS:
            return _texts_of(path, _RECORD_READERS[kind](path, stream, rules.records), rules)
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
        if kind not in _RECORD_READERS:
            return iter([Unreadable(path, f"{kind} is no table")])
        return _RECORD_READERS[kind](path, stream, records)

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
        yield Unreadable(path, f"unsupported format {PurePosixPath(_stem(path)).suffix.lower()}")
        return
    try:
        with opener() as raw, decompressed(item.path, item.size, raw) as stream:
            yield from read(kind, path, stream)
    except BombError:
        yield Unreadable(path, "decompression bomb")
    except _TooLargeError as error:
        yield Unreadable(path, "too large", str(error))
    except RecursionError:
        yield Unreadable(path, "too deeply nested")
    except RuntimeError as error:  # zipfile's word for a password, and (as a subclass) for an unknown method
        yield Unreadable(path, "encrypted or unknown compression", str(error))
    except PermissionError:
        yield Unreadable(path, "permission denied")
    except DAMAGED as error:
        yield Unreadable(path, "damaged", f"{type(error).__name__}: {error}"[:200])


def _read_whole(stream: BinaryIO) -> bytes:
    data = stream.read(WHOLE_FILE_LIMIT + 1)
    if len(data) > WHOLE_FILE_LIMIT:
        raise _TooLargeError(f"more than {WHOLE_FILE_LIMIT // MEBIBYTE} MiB in one document")
    return data


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

    data = _read_whole(stream)
    if looks_binary(data[:8192]):
        yield Unreadable(path, "binary")
        return
    page = data.decode(detect_encoding(data, html=True), "replace")
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

    for text, record in texts(values(), rules):
        origin = origins.popleft()
        text = _render(text) if rules.html and "<" in text else text
        if text.strip():
            yield Extracted(origin, text)
        else:
            yield Unreadable(origin, "record without text", json.dumps(record, default=str)[:300])
    yield from failed


def _numbered(path: str, values: Iterable[Any]) -> Iterator[Record | Unreadable]:
    for number, value in enumerate(values, start=1):
        yield Record(f"{path}#{number}", value)


def _read_json(path: str, stream: BinaryIO, records: str | None) -> Iterator[Record | Unreadable]:
    data = _read_whole(stream)
    try:
        value = json.loads(data)
    except json.JSONDecodeError:
        if b"\n" not in data.strip():
            raise
        yield from _read_jsonl(path, io.BytesIO(data), records)  # many call their JSON lines .json
        return
    yield from _numbered(path, split_records(value, records))


def _read_jsonl(path: str, stream: BinaryIO, records: str | None) -> Iterator[Record | Unreadable]:
    number = 0
    line_number = 0
    while line := stream.readline(LINE_LIMIT + 1):
        line_number += 1
        if len(line) > LINE_LIMIT:
            raise _TooLargeError(f"line {line_number} has more than {LINE_LIMIT // MEBIBYTE} MiB")
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            sample = line[:200].decode("utf-8", "replace")
            yield Unreadable(f"{path}:{line_number}", "line is not JSON", sample)
            continue
        for record in split_records(value, records) if records else [value]:
            number += 1
            yield Record(f"{path}#{number}", record)


def _table_reader(delimiters: str) -> RecordReader:
    def read(path: str, stream: BinaryIO, _: str | None) -> Iterator[Record | Unreadable]:
        head = stream.read(MEBIBYTE)
        if looks_binary(head[:8192]):
            yield Unreadable(path, "binary")
            return
        encoding = detect_encoding(head)
        first_line = head.decode(encoding, "replace").split("\n", 1)[0]
        delimiter = max(delimiters, key=first_line.count)
        csv.field_size_limit(LINE_LIMIT)
        rest = io.BufferedReader(Rejoined(head, stream), MEBIBYTE)
        with io.TextIOWrapper(rest, encoding, "replace", newline="") as lines:
            yield from _numbered(path, csv.DictReader(lines, delimiter=delimiter))

    return read


def _read_parquet(path: str, stream: BinaryIO, _: str | None) -> Iterator[Record | Unreadable]:
    import shutil

    import pyarrow.parquet as pq

    with tempfile.TemporaryFile() as whole:  # Parquet is read from its end; archives give streams
        shutil.copyfileobj(stream, whole, MEBIBYTE)
        table = pq.ParquetFile(whole)
        rows = (row for batch in table.iter_batches(batch_size=512) for row in batch.to_pylist())
        yield from _numbered(path, rows)


_TEXT_READERS: dict[Format, Callable[[str, BinaryIO], Iterator[Extracted | Unreadable]]] = {
    "text": _read_text,
    "markdown": _read_markdown,
    "html": _read_html,
}
_RECORD_READERS: dict[Format, RecordReader] = {
    "json": _read_json,
    "jsonl": _read_jsonl,
    "csv": _table_reader(",;\t|"),
    "tsv": _table_reader("\t"),
    "parquet": _read_parquet,
}
