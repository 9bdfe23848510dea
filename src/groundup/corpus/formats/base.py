"""Types that the readers of all formats share: their results and the signature of a reader function."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from groundup.corpus.records import RecordOptions
from groundup.corpus.streams import DecompressionLimit


@dataclass(frozen=True, slots=True)
class Extracted:
    """A text that was extracted from a file, and its origin.

    Attributes:
        origin: Path of the file and location of the text inside it, such as "books.zip/a.epub" or "mail.mbox#3".
        text: The text.
        field: Path of the field in which the text was detected, or "" if no field was detected.
        url: URL of the text, or "" if the format does not store a URL.
        date: ISO 8601 date on which the text was written or captured, or "" if the format does not store a date.
        pages: Offsets in the text at which the pages start, or () if the format has no pages.
    """

    origin: str
    text: str
    field: str = ""
    url: str = ""
    date: str = ""
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or record from which no text could be read.

    Attributes:
        origin: Path of the file and location of the record inside it.
        reason: Short reason. The data card counts files and records by reason.
        sample: Error message, or beginning of the content.
    """

    origin: str
    reason: str
    sample: str = ""


class UnknownFormatError(Exception):
    """Raised for a file whose format is unknown or unsupported.

    The message of the exception is "binary", "password-protected", the file name suffix or the name of the format.
    """


Found = Iterator[Extracted | Unreadable]


@dataclass(frozen=True, slots=True)
class ReaderContext:
    """The arguments that every reader function receives.

    Attributes:
        options: Settings of the source that describe how to read records and web pages.
        inside: Function that reads a file inside this file, such as a member of an archive. The arguments of the
            function are the path and the stream of the inner file.
        budget: Limit for the total number of bytes decompressed from this file and all files inside it.
        start: Offset of the first byte to read (see `Item`).
        end: Offset after the last byte to read.
    """

    options: RecordOptions
    inside: Callable[[str, BinaryIO], Found]
    budget: DecompressionLimit
    start: int = 0
    end: int | None = None


Reader = Callable[[str, BinaryIO, ReaderContext], Found]
"""Function that reads a file: (path, stream, context) -> texts.

A reader may raise `streams.READ_ERRORS` and the exceptions that `groundup.corpus.streams` defines.
"""


def column_names(header: Iterable[str | None]) -> tuple[str, ...]:
    """Return unique column names for a header, from which surrounding spaces are removed.

    Duplicate names become "name_2", "name_3", and so on. If column number N has no name, its name becomes "column_N".

    Args:
        header: Cells of the header row.
    """
    raw = [(name or "").strip() for name in header]
    taken, seen, names = set(raw), {""}, list[str]()
    numbers = defaultdict[str, Iterator[int]](lambda: itertools.count(2))
    for number, name in enumerate(raw, start=1):
        chosen = stem = name or f"column_{number}"
        while name in seen and chosen in taken:
            chosen = f"{stem}_{next(numbers[stem])}"
        seen.add(name)
        taken.add(chosen)
        names.append(chosen)
    return tuple(names)
