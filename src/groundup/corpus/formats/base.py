"""What every format has in common: what comes out of a file, and how a reader is called."""

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
    """A raw text and where it was found.

    Attributes:
        origin: the file, and what is inside of it: "shelf.zip/a.epub", "mail.mbox#3".
        field: the path to the text in its record, where nobody had told that.
        url: where the text was published, as far as the format knows.
        date: when it was written or captured, in ISO 8601, as far as the format knows.
    """

    origin: str
    text: str
    field: str = ""
    url: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file, or a record of one, that gave no text: where it was and a short reason to count it under."""

    origin: str
    reason: str
    sample: str = ""


class UnknownFormatError(Exception):
    """No reader is for this file: "binary", "password-protected", or the suffix or name of its format."""


Found = Iterator[Extracted | Unreadable]


@dataclass(frozen=True, slots=True)
class ReaderContext:
    """What a reader may use.

    Attributes:
        rules: how the source's recipe wants its files read.
        inside: reads a file that is inside of this one (path, stream), whatever its format.
        budget: how many bytes may be decompressed for this file and all that is in it.
        start, end: the part of the file that is meant, in stored bytes (see `Item`).
    """

    rules: RecordRules
    inside: Callable[[str, BinaryIO], Found]
    budget: DecompressionLimit
    start: int = 0
    end: int | None = None


Reader = Callable[[str, BinaryIO, ReaderContext], Found]
"""Reads a file: (path, stream, context) -> texts. May raise `streams.READ_ERRORS` and the errors of `streams`."""


def column_names(header: Iterable[str | None]) -> tuple[str, ...]:
    """The names of a table's columns by its header, so that no cell takes another one's place.

    Without blanks around them; the first column of a name keeps it, further ones get "name_2", "name_3", ..., as far as
    no other has that; without a name is "column_N", counted from 1.
    """
    given = [(name or "").strip() for name in header]
    taken, seen, names = set(given), {""}, list[str]()
    numbers = defaultdict[str, Iterator[int]](lambda: itertools.count(2))
    for number, name in enumerate(given, start=1):
        chosen = stem = name or f"column_{number}"
        while name in seen and chosen in taken:
            chosen = f"{stem}_{next(numbers[stem])}"
        seen.add(name)
        taken.add(chosen)
        names.append(chosen)
    return tuple(names)
