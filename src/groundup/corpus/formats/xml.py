"""Parse untrusted XML one element at a time, in bounded memory and without entity declarations."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import BinaryIO, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser
from xml.parsers import expat

from groundup.corpus.streams import MAX_DOCUMENT_BYTES, MEBIBYTE, TooLargeError

_CHUNK = 1 << 16
_MAX_DEPTH = 10_000  # maximum nesting depth of elements, because open elements stay in memory


class _RootFoundError(Exception):
    """Raised when the root element starts, because entities cannot be declared after that."""


def elements(stream: BinaryIO, whole: Set[str] = frozenset()) -> Iterator[tuple[str, str, Element]]:
    """Yield the events of an XML parser. Each element is released after its end event to bound memory use.

    Args:
        stream: The XML file.
        whole: Names of elements whose children are kept until the end event of the element.

    Yields:
        Tuples of the event ("start" or "end"), the element name without its namespace, and the element.

    Raises:
        ValueError: The XML is malformed or declares entities. XML entities could expand to gigabytes or read local
            files.
        TooLargeError: An XML element has more than 256 MiB.
        RecursionError: Elements are nested too deeply.
    """
    above: list[Element] = []
    kept = 0  # number of open elements whose name is in `whole`
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
    pending = 0  # number of bytes parsed since the last event
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
