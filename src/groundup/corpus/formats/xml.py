"""Parse untrusted XML one element at a time, in bounded memory and without entity declarations."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import BinaryIO, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser
from xml.parsers import expat

from groundup.corpus.streams import MAX_DOCUMENT_BYTES, MEBIBYTE, TooLargeError

_CHUNK = 1 << 16
_MAX_DEPTH = 10_000  # nesting of elements; open elements stay in memory


class _RootFoundError(Exception):
    """The root element has started, so no declarations can follow."""


def elements(stream: BinaryIO, whole: Set[str] = frozenset()) -> Iterator[tuple[str, str, Element]]:
    """Yield parser events, and release each element after its end to bound memory.

    Args:
        stream: The XML file.
        whole: Names of elements that keep their children until their end.

    Yields:
        ("start" or "end", name without namespace, element).

    Raises:
        ValueError: The XML is malformed, or declares entities, which could expand to gigabytes or read files.
        TooLargeError: An element has more than 256 MiB.
        RecursionError: Elements are nested too deeply.
    """
    above: list[Element] = []
    kept = 0  # open elements that are in `whole`
    for event, element in _events(stream):
        name = element.tag.rpartition("}")[2]
        if event == "start":
            above.append(element)
            if len(above) > _MAX_DEPTH:
                raise RecursionError
            kept += name in whole
            yield event, name, element
            continue
        yield event, name, element
        above.pop()
        kept -= name in whole
        if above and not kept:
            above[-1].remove(element)


def _events(stream: BinaryIO) -> Iterator[tuple[str, Element]]:
    parser: XMLPullParser[Element] = XMLPullParser(("start", "end"))
    guard: expat.XMLParserType | None = _entity_guard()
    pending = 0  # bytes since the last event
    try:
        while chunk := stream.read(_CHUNK):
            if guard is not None:
                try:
                    guard.Parse(chunk)
                except _RootFoundError:
                    guard = None
            parser.feed(chunk)
            pending += len(chunk)
            if pending > MAX_DOCUMENT_BYTES:
                raise TooLargeError(f"an XML element has more than {MAX_DOCUMENT_BYTES // MEBIBYTE} MiB")
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
        raise _RootFoundError

    guard.EntityDeclHandler = refuse
    guard.StartElementHandler = begin
    return guard
