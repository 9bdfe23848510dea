"""XML that others made: element by element, in bounded memory, and without entities of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser
from xml.parsers import expat

from groundup.corpus.streams import MEBIBYTE, WHOLE_FILE_LIMIT, TooLargeError

_CHUNK = 1 << 16


class _BegunError(Exception):
    pass


def elements(stream: BinaryIO) -> Iterator[tuple[str, Element]]:
    """("start" or "end", element) of a document as they come; whoever takes an element clears it to keep memory flat.

    Raises:
        ValueError: not well-formed, or with declared entities: a few lines of those unfold to gigabytes, or read files.
        TooLargeError: an element of more than 256 MiB.
    """
    parser: XMLPullParser[Element] = XMLPullParser(("start", "end"))
    guard: expat.XMLParserType | None = _entity_guard()
    pending = 0  # bytes since something last ended
    try:
        while chunk := stream.read(_CHUNK):
            if guard is not None:
                try:
                    guard.Parse(chunk)
                except _BegunError:  # nothing can be declared any more
                    guard = None
            parser.feed(chunk)
            pending += len(chunk)
            if pending > WHOLE_FILE_LIMIT:
                raise TooLargeError(f"an XML element has more than {WHOLE_FILE_LIMIT // MEBIBYTE} MiB")
            for event in parser.read_events():
                pending = 0
                yield cast(tuple[str, Element], event)
        parser.close()
    except (ParseError, expat.ExpatError) as error:
        raise ValueError(f"XML: {error}") from error


def _entity_guard() -> expat.XMLParserType:
    guard = expat.ParserCreate()

    def refuse(name: str, *_: object) -> None:
        raise ValueError(f"XML declares the entity {name}")

    def begin(*_: object) -> None:
        raise _BegunError

    guard.EntityDeclHandler = refuse
    guard.StartElementHandler = begin
    return guard


def local_name(tag: str) -> str:
    """A tag without its namespace."""
    return tag.rpartition("}")[2]
