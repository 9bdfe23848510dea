"""Read table files: JSON, JSON Lines, CSV, TSV, Parquet, Excel and chat exports."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, AnyStr, BinaryIO

from groundup.corpus.formats.base import Extracted, Found, Reader, ReaderContext, Unreadable
from groundup.corpus.formats.chat import Chat, conversations, conversations_of, messenger_export
from groundup.corpus.formats.delimited import find_layout
from groundup.corpus.formats.html import render_html
from groundup.corpus.formats.quotes import Unclosed
from groundup.corpus.records import RecordOptions, outline, record_texts, split_records
from groundup.corpus.sources.base import Format
from groundup.corpus.streams import (
    MAX_LINE_BYTES,
    MEBIBYTE,
    TooLargeError,
    as_seekable,
    detect_encoding,
    looks_binary,
    read_whole,
    with_head,
)

NO_TEXT = "record without text"
NOT_JSON = "line is not JSON"
TOO_MANY_CELLS = "row with more cells than columns"
NO_END = "cell with an opening quote but no closing quote"


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a table file, with its origin."""

    origin: str
    value: Any


RecordReader = Callable[[str, BinaryIO, str | None], Iterator[Record | Unreadable]]


def _numbered(path: str, values: Iterable[Any]) -> Iterator[Record]:
    for number, value in enumerate(values, start=1):
        yield Record(f"{path}#{number}", value)


def _parse(data: bytes | str, encoding: str) -> Any:
    """Parse JSON. If the data is not UTF-8, decode it with `encoding` or with a detected encoding."""
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        assert isinstance(data, bytes)
        return json.loads(data.decode(detect_encoding(data) if encoding.startswith("utf") else encoding, "replace"))


def _json_value(data: bytes) -> tuple[Any, bool]:
    """Return (value, True) for a JSON file, or (None, False) for a JSON Lines file that has the suffix .json."""
    try:
        return _parse(data, detect_encoding(data)), True
    except ValueError:
        if b"\n" not in data.strip():
            raise
        return None, False


def _read_json(path: str, stream: BinaryIO, records: str | None) -> Iterator[Record | Unreadable]:
    data = read_whole(stream)
    value, is_one = _json_value(data)
    if not is_one:
        yield from _read_jsonl(path, io.BytesIO(data), records)
        return
    exported = None if records else conversations(value)
    yield from _numbered(path, split_records(value, records) if exported is None else _conversation_records(exported))


def _read_chat(path: str, stream: BinaryIO, _: str | None) -> Iterator[Record | Unreadable]:
    yield from _numbered(path, _conversation_records([messenger_export(stream)]))


def _conversation_records(chats: Iterable[Chat]) -> Iterator[dict[str, Any]]:
    """Yield each conversation of exported chats as a record.

    Each message in the record has a `name` and a `content`.
    """
    for chat in chats:
        for turns in conversations_of(chat):
            yield {"messages": [{"name": turn.name, "content": turn.text} for turn in turns]}


def is_exported_chat(value: Any) -> bool:
    """Return whether a record is a conversation that `_conversation_records` created from an exported chat."""
    turns = value.get("messages") if isinstance(value, dict) and len(value) == 1 else None
    return isinstance(turns, list) and all(
        isinstance(turn, dict) and set(turn) == {"name", "content"} for turn in turns
    )


def read_json_table(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the texts of a JSON file.

    A chat export is read as a chat, unless the recipe sets the path of the records or of the text. Other JSON files are
    read as records.
    """
    options, data = reading.options, read_whole(stream)
    value, is_one = _json_value(data)
    if not is_one:
        yield from _texts_of(_read_jsonl(path, io.BytesIO(data), options.records), options)
        return
    exported = None if options.has_text_path or options.records else conversations(value)
    if exported is None:
        yield from _texts_of(_numbered(path, split_records(value, options.records)), options)
        return
    for number, chat in enumerate(exported, start=1):
        if chat.turns:
            yield Extracted(f"{path}#{number}", str(chat), date=chat.began)
        else:
            yield Unreadable(f"{path}#{number}", NO_TEXT)


def _bounded_lines(lines: IO[AnyStr]) -> Iterator[AnyStr]:
    """Yield the lines of a file. Raise `TooLargeError` for a line that exceeds the size limit."""
    number = 0
    while line := lines.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise TooLargeError(f"line {number} has more than {MAX_LINE_BYTES // MEBIBYTE} MiB")
        yield line


def _read_jsonl(path: str, stream: BinaryIO, records: str | None) -> Iterator[Record | Unreadable]:
    head, rest = with_head(stream)
    encoding = detect_encoding(head)
    # In these encodings, other characters also contain the newline byte.
    wide = encoding.startswith(("utf-16", "utf-32"))
    lines = io.TextIOWrapper(rest, encoding, "replace", newline="\n") if wide else rest
    number = 0
    line_number, is_rest = 0, False
    while line := lines.readline(MAX_LINE_BYTES + 1):
        was_rest, is_rest = is_rest, len(line) > MAX_LINE_BYTES
        line_number += not was_rest
        if is_rest and not was_rest:
            yield Unreadable(
                f"{path}:{line_number}", "too large", f"more than {MAX_LINE_BYTES // MEBIBYTE} MiB in one line"
            )
        if is_rest or was_rest or not line.strip():
            continue
        try:
            value = _parse(line, encoding)
        except (ValueError, RecursionError):  # json.loads also raises ValueError for integers with thousands of digits
            sample = line[:200].decode("utf-8", "replace") if isinstance(line, bytes) else line[:200]
            yield Unreadable(f"{path}:{line_number}", NOT_JSON, sample)
            continue
        for record in split_records(value, records) if records else [value]:
            number += 1
            yield Record(f"{path}#{number}", record)


def _delimited_reader(delimiters: str) -> RecordReader:
    def read(path: str, stream: BinaryIO, _: str | None) -> Iterator[Record | Unreadable]:
        head, rest = with_head(stream)
        if looks_binary(head[:8192]):
            yield Unreadable(path, "binary")
            return
        encoding = detect_encoding(head)
        csv.field_size_limit(MAX_LINE_BYTES)
        layout = find_layout(head.decode(encoding, "replace"), delimiters, whole=len(head) < MEBIBYTE)
        with io.TextIOWrapper(rest, encoding, "replace", newline="") as lines:
            for record in _numbered(path, layout.rows(_bounded_lines(lines))):
                if isinstance(record.value, Unclosed):
                    yield Unreadable(f"{path}:{record.value.line}", NO_END, record.value.text.strip()[:200])
                elif isinstance(record.value, str):
                    yield Unreadable(record.origin, TOO_MANY_CELLS, record.value)
                else:
                    yield record

    return read


def _read_parquet(path: str, stream: BinaryIO, _: str | None) -> Iterator[Record | Unreadable]:
    from groundup.corpus.formats.parquet import read_parquet_rows

    yield from _numbered(path, read_parquet_rows(as_seekable(stream)))  # the Parquet reader needs a seekable file


def _read_xlsx(path: str, stream: BinaryIO, _: str | None) -> Iterator[Record | Unreadable]:
    from groundup.corpus.formats.excel import read_excel_rows

    yield from _numbered(path, read_excel_rows(as_seekable(stream)))


RECORD_READERS: dict[Format, RecordReader] = {
    "json": _read_json,
    "jsonl": _read_jsonl,
    "csv": _delimited_reader(",;\t|"),
    "tsv": _delimited_reader("\t"),
    "parquet": _read_parquet,
    "xlsx": _read_xlsx,
    "chat": _read_chat,
}


def table_reader(records_of: RecordReader) -> Reader:
    """Return a reader that yields the texts of the records of a table format."""

    def read(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
        return _texts_of(records_of(path, stream, reading.options.records), reading.options)

    return read


def _texts_of(found: Iterator[Record | Unreadable], options: RecordOptions) -> Found:
    failed: list[Unreadable] = []
    origins: deque[str] = deque()

    def values() -> Iterator[Any]:
        for each in found:
            if isinstance(each, Unreadable):
                failed.append(each)
            else:
                origins.append(each.origin)
                yield each.value

    for text, record, field in record_texts(values(), options):
        origin = origins.popleft()
        text = render_html(text) if options.html and "<" in text else text
        if text.strip():
            yield Extracted(origin, text, field)
        else:
            yield Unreadable(origin, NO_TEXT, outline(record))
    yield from failed
