"""XML that others made: element by element, in bounded memory, and without entities of its own."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import BinaryIO, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser
from xml.parsers import expat

from groundup.corpus.streams import MAX_DOCUMENT_BYTES, MEBIBYTE, TooLargeError

_CHUNK = 1 << 16
_DEEPEST = 10_000  # elements in elements: those that are open stay in memory


class _BegunError(Exception):
    """The document's first element is there: nothing can be declared any more."""


def elements(stream: BinaryIO, whole: Set[str] = frozenset()) -> Iterator[tuple[str, str, Element]]:
    """("start" or "end", name without namespace, element) as they come.

    An element is let go after its end, so that a document of any size needs little memory; but those named in `whole`
    still have all that is in them at their end.

    Raises:
        ValueError: not well-formed, or with declared entities: a few lines of those unfold to gigabytes, or read files.
        TooLargeError: an element of more than 256 MiB.
        RecursionError: elements nested without end.
    """
    above: list[Element] = []
    kept = 0  # elements above that are wanted whole
    for event, element in _events(stream):
        name = element.tag.rpartition("}")[2]
        if event == "start":
            above.append(element)
            if len(above) > _DEEPEST:
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
    pending = 0  # bytes since something last ended
    try:
        while chunk := stream.read(_CHUNK):
            if guard is not None:
                try:
                    guard.Parse(chunk)
                except _BegunError:
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
        raise _BegunError

    guard.EntityDeclHandler = refuse
    guard.StartElementHandler = begin
    return guard
