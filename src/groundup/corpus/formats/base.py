"""Types shared by all formats: the results and the signature of a reader."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from groundup.corpus.records import RecordRules
from groundup.corpus.streams import DecompressionLimit


@dataclass(frozen=True, slots=True)
class Extracted:
    """A raw text and its origin.

    Attributes:
        origin: The file and the location inside it: "books.zip/a.epub", "mail.mbox#3".
        text: The text.
        field: Path of the text in its record, if it was detected.
        url: URL of the text, if the format has it.
        date: Date of writing or capture in ISO 8601, if the format has it.
    """

    origin: str
    text: str
    field: str = ""
    url: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file or record without text: its origin, a short reason to count, and a sample."""

    origin: str
    reason: str
    sample: str = ""


class UnknownFormatError(Exception):
    """A file of an unsupported format; the message is "binary", "password-protected", a suffix or a format name."""


Found = Iterator[Extracted | Unreadable]


@dataclass(frozen=True, slots=True)
class ReaderContext:
    """Arguments for a reader.

    Attributes:
        rules: Settings of the source for records and pages.
        inside: Reads a file inside this one, given its path and stream.
        budget: Limit for the bytes decompressed from this file and all files inside it.
        start: Offset of the first byte to read (see `Item`).
        end: Offset after the last byte to read.
    """

    rules: RecordRules
    inside: Callable[[str, BinaryIO], Found]
    budget: DecompressionLimit
    start: int = 0
    end: int | None = None


Reader = Callable[[str, BinaryIO, ReaderContext], Found]
"""Reads a file: (path, stream, context) -> texts. May raise `streams.READ_ERRORS` and the errors of `streams`."""


def column_names(header: Iterable[str | None]) -> tuple[str, ...]:
    """Return unique column names for a header, without surrounding spaces.

    Duplicate names become "name_2", "name_3", and so on. The Nth column without a name becomes "column_N".

    Args:
        header: The cells of the header.
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
