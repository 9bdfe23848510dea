"""Extract text from files. Each file format has a module in this package."""

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
from groundup.corpus.records import RecordOptions
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
_MAX_DEPTH = 2  # maximum nesting depth of archives in archives or of messages in messages
_MAX_LAYERS = 2  # maximum number of nested compression formats, such as a .gz file inside a .xz file
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


def extract(
    item: Item, opener: Opener, options: RecordOptions, format: Format | None
) -> Iterator[Extracted | Unreadable]:
    """Yield all texts of one file and of the files inside it.

    A file that is damaged, too large, binary or of an unknown format does not raise an error. If a file has an error,
    all records before the error are yielded, followed by an `Unreadable`.

    Args:
        item: The file.
        opener: Opens the file.
        options: Settings of the source that describe how to read records and web pages.
        format: Format of the file, or None to detect the format from the content.

    Yields:
        An `Extracted` for each text, and an `Unreadable` for each file or record that has no readable text.
    """
    budget = DecompressionLimit(item.size)

    def reader(depth: int) -> _Read[Extracted]:
        def inside(path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
            if depth == _MAX_DEPTH:
                return iter([Unreadable(path, "too many archives inside of each other")])
            return _caught(path, _read(path, stream, None, budget, reader(depth + 1)), inside=True)

        def read(kind: Format, path: str, stream: BinaryIO) -> Iterator[Extracted | Unreadable]:
            if kind not in _READERS:
                raise UnknownFormatError(kind)
            part = (item.start, item.end) if depth == 0 else (0, None)
            return _READERS[kind](path, stream, ReaderContext(options, inside, budget, *part))

        return read

    return _open(item, opener, format, budget, reader(0))


def read_records(
    item: Item,
    opener: Opener,
    records: str | None,
    format: Format | None,
    chooses: Callable[[str], bool] = lambda _: True,
) -> Iterator[Record | Unreadable]:
    """Yield all records of a table file (see `RECORD_READERS`), or of the table files in an archive.

    As in `extract`, a file that cannot be read yields an `Unreadable` and does not raise an error.

    Args:
        item: The file.
        opener: Opens the file.
        records: Path to the records inside a JSON value (see `SourceConfig`).
        format: Format of the file, or None to detect the format from the content.
        chooses: Function that returns whether to read a file inside an archive, given its path. The path of a file
            inside an archive starts with the path of the archive.

    Yields:
        A `Record` for each record, and an `Unreadable` for each file or row that cannot be read.
    """
    budget = DecompressionLimit(item.size)

    def inside(path: str, stream: BinaryIO) -> Iterator[Record | Unreadable]:
        if not chooses(path) or (format or format_of(path)) not in RECORD_READERS:
            return iter(())
        return _caught(path, _read(path, stream, format, budget, read), inside=True)

    def read(kind: Format, path: str, stream: BinaryIO) -> Iterator[Record | Unreadable]:
        if kind == "archive" and path == item.path:
            reading = ReaderContext(RecordOptions(), cast(Any, inside), budget)
            return cast(Iterator[Record | Unreadable], read_archive(path, stream, reading))
        if kind not in RECORD_READERS:
            return iter([Unreadable(path, f"{kind} is not a table format")])
        return RECORD_READERS[kind](path, stream, records)

    return _open(item, opener, None if format_of(item.path) == "archive" else format, budget, read)


def _open(
    item: Item, opener: Opener, format: Format | None, budget: DecompressionLimit, read: _Read[_Found]
) -> Iterator[_Found | Unreadable]:
    path = item.path.encode("utf-8", "replace").decode()  # file names on disk may be invalid Unicode
    if item.refused:
        yield Unreadable(path, item.refused)
        return

    def read_file() -> Iterator[_Found | Unreadable]:
        with opener() as raw:
            yield from _read(path, raw, format, budget, read)

    yield from _caught(path, read_file())


def _read(
    path: str, raw: BinaryIO, format: Format | None, budget: DecompressionLimit, read: _Read[_Found]
) -> Iterator[_Found | Unreadable]:
    """Decompress a stream, detect its format, and read it."""
    with ExitStack() as layers:
        stream = raw
        for _ in range(_MAX_LAYERS + 1):
            head, stream = with_head(stream)
            inner = decompressed(head, stream, budget)
            if inner is None:
                break
            stream = layers.enter_context(inner)
        kind = format or detect(path, head)
        if kind == "warc" and (is_file(raw) or isinstance(getattr(raw, "raw", None), RemoteStream)):
            # The WARC reader decompresses the file itself. The WARC reader must also seek in the file to skip damaged
            # records or to start at an offset.
            raw.seek(0)
            stream = raw
        if kind == "archive" and head.startswith(b"PK"):
            stream = as_seekable(stream)
            kind = format or zip_format(stream)
            stream.seek(0)
        yield from read(kind, path, stream)


def _caught(path: str, found: Iterator[_Found], *, inside: bool = False) -> Iterator[_Found | Unreadable]:
    """Yield all results of a reader. If the reader raises an exception, yield an `Unreadable` and stop.

    A decompression bomb inside an archive also stops the reading of the archive.
    """
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
    except RuntimeError as error:  # zipfile raises RuntimeError for an encrypted file or an unknown compression method
        yield Unreadable(path, "encrypted or unknown compression", str(error))
    except PermissionError:
        yield Unreadable(path, "permission denied")
    except FileNotFoundError:  # the error message contains the full path, which may be private
        yield Unreadable(path, "deleted before it was read")
    except READ_ERRORS as error:
        yield Unreadable(path, "damaged", f"{type(error).__name__}: {error}"[:200])
