"""Bytes to texts: compression, encodings, and the formats that people keep text in, one a module here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO, TypeVar, cast

from groundup.corpus.fetching.stream import RemoteStream
from groundup.corpus.formats.archive import read_archive
from groundup.corpus.formats.base import Extracted, Reader, ReaderContext, UnknownFormatError, Unreadable
from groundup.corpus.formats.chat import read_chat
from groundup.corpus.formats.detect import detect, format_of, zip_format
from groundup.corpus.formats.epub import read_epub
from groundup.corpus.formats.html import read_html
from groundup.corpus.formats.mail import read_email, read_mbox
from groundup.corpus.formats.office import read_docx, read_odt
from groundup.corpus.formats.pdf import read_pdf
from groundup.corpus.formats.plain import read_markdown, read_plain_text
from groundup.corpus.formats.tables import NO_TEXT, RECORD_READERS, Record, read_json_table, table_reader
from groundup.corpus.formats.warc import read_warc
from groundup.corpus.formats.wiki import read_wiki
from groundup.corpus.records import RecordRules
from groundup.corpus.sources.base import Format, Item, Opener
from groundup.corpus.streams import (
    READ_ERRORS,
    DecompressionBombError,
    DecompressionLimit,
    TooLargeError,
    as_seekable,
    decompressed,
    is_file,
    with_head,
)

__all__ = ["NO_TEXT", "UNSUPPORTED", "Extracted", "Record", "Unreadable", "extract", "format_of", "read_records"]

UNSUPPORTED = "unsupported format"
_DEEPEST = 2  # archives in archives, messages in messages
_LAYERS = 2  # of compression around one file
_READERS: dict[Format, Reader] = {
    "text": read_plain_text,
    "markdown": read_markdown,
    "html": read_html,
    **{kind: table_reader(reader) for kind, reader in RECORD_READERS.items()},
    "json": read_json_table,
    "pdf": read_pdf,
    "docx": read_docx,
    "odt": read_odt,
    "epub": read_epub,
    "email": read_email,
    "mbox": read_mbox,
    "chat": read_chat,
    "wiki": read_wiki,
    "warc": read_warc,
    "archive": read_archive,
}

_Found = TypeVar("_Found")
_Read = Callable[[Format, str, BinaryIO], Iterator[_Found | Unreadable]]


def extract(item: Item, opener: Opener, rules: RecordRules, format: Format | None) -> Iterator[Extracted | Unreadable]:
    """Read all texts of one file, and of the files inside of it.

    Nothing that a file contains raises: damaged, oversized, binary and unknown files come out as
    `Unreadable`, after whatever records came before the damage.

    Args:
        format: what the recipe says that the file is; else its content tells.
    """
    budget = DecompressionLimit(item.size)

    def reader(depth: int) -> _Read[Extracted]:
        def inside(path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
            if depth == _DEEPEST:
                return iter([Unreadable(path, "too many archives inside of each other")])
            return _survived(path, _read(path, stream, None, budget, reader(depth + 1)), inside=True)

        def read(kind: Format, path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
            if kind not in _READERS:
                raise UnknownFormatError(kind)
            part = (item.start, item.end) if depth == 0 else (0, None)
            return _READERS[kind](path, stream, ReaderContext(rules, inside, budget, *part))

        return read

    return _opened(item, opener, format, budget, reader(0))


def read_records(
    item: Item,
    opener: Opener,
    records: str | None,
    format: Format | None,
    chooses: Callable[[str], bool] = lambda _: True,
) -> Iterator[Record | Unreadable]:
    """Read all records of one file of a table format (see `RECORD_READERS`); raises as little as `extract`.

    Of an archive, those of the tables in it.

    Args:
        records: path to the records inside a JSON value (see `SourceConfig`).
        chooses: which files of an archive are meant, by the archive's path with theirs.
    """
    budget = DecompressionLimit(item.size)

    def inside(path: str, stream: BinaryIO) -> Iterator[Record | Unreadable]:
        if not chooses(path) or (format or format_of(path)) not in RECORD_READERS:
            return iter(())
        return _survived(path, _read(path, stream, format, budget, read), inside=True)

    def read(kind: Format, path: str, stream: BinaryIO) -> Iterator[Record | Unreadable]:
        if kind == "archive" and path == item.path:
            reading = ReaderContext(RecordRules(), cast(Any, inside), budget)
            return cast(Iterator[Record | Unreadable], read_archive(path, stream, reading))
        if kind not in RECORD_READERS:
            return iter([Unreadable(path, f"{kind} is no table")])
        return RECORD_READERS[kind](path, stream, records)

    return _opened(item, opener, None if format_of(item.path) == "archive" else format, budget, read)


def _opened(
    item: Item, opener: Opener, format: Format | None, budget: DecompressionLimit, read: _Read[_Found]
) -> Iterator[_Found | Unreadable]:
    path = item.path.encode("utf-8", "replace").decode()  # names on disk need not be valid Unicode
    if item.refused:
        yield Unreadable(path, item.refused)
        return

    def opened() -> Iterator[_Found | Unreadable]:
        with opener() as raw:
            yield from _read(path, raw, format, budget, read)

    yield from _survived(path, opened())


def _read(
    path: str, raw: BinaryIO, format: Format | None, budget: DecompressionLimit, read: _Read[_Found]
) -> Iterator[_Found | Unreadable]:
    """Look into a stream, undo its compression, and read what it is."""
    with ExitStack() as layers:
        stream = raw
        for _ in range(_LAYERS + 1):
            head, stream = with_head(stream)
            inner = decompressed(head, stream, budget)
            if inner is None:
                break
            stream = layers.enter_context(inner)
        kind = format or detect(path, head)
        if kind == "warc" and (is_file(raw) or isinstance(getattr(raw, "raw", None), RemoteStream)):
            # Its reader enters files anywhere, behind damage or at a part's beginning, and decompresses in native code.
            raw.seek(0)
            stream = raw
        if kind == "archive" and head.startswith(b"PK"):
            stream = as_seekable(stream)
            kind = format or zip_format(stream)
            stream.seek(0)
        yield from read(kind, path, stream)


def _survived(path: str, found: Iterator[_Found], *, inside: bool = False) -> Iterator[_Found | Unreadable]:
    """What is found, until it is damaged; a bomb ends the file that it is `inside` of as well."""
    try:
        yield from found
    except UnknownFormatError as error:
        what = str(error)
        yield Unreadable(
            path, what if what == "binary" else f"{UNSUPPORTED}{' ' if what.startswith('.') else ': '}{what}"
        )
    except DecompressionBombError:
        if inside:
            raise
        yield Unreadable(path, "decompression bomb")
    except TooLargeError as error:
        yield Unreadable(path, "too large", str(error))
    except RecursionError:
        yield Unreadable(path, "too deeply nested")
    except RuntimeError as error:  # zipfile's word for a password, and (as a subclass) for an unknown method
        yield Unreadable(path, "encrypted or unknown compression", str(error))
    except PermissionError:
        yield Unreadable(path, "permission denied")
    except FileNotFoundError:  # its message would tell the whole path, which may be private
        yield Unreadable(path, "vanished before it was read")
    except READ_ERRORS as error:
        yield Unreadable(path, "damaged", f"{type(error).__name__}: {error}"[:200])
