"""HTML: the main text of a page."""

from __future__ import annotations

from typing import BinaryIO

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.html import main_text
from groundup.corpus.streams import MEBIBYTE, TooLargeError, detect_encoding, looks_binary

_NESTING_LIMIT = 512  # of elements, as in browsers: the time to render them grows with its square
_TOO_DEEP = ">".join("*" * (_NESTING_LIMIT + 1))
PAGE_LIMIT = 32 * MEBIBYTE  # the parsed page takes ten times that
_TAGS = 1_000_000  # in one page: each takes 600 bytes parsed, and the longest standards have half as many
_TOO_MANY_TAGS = f"more than {_TAGS:,} tags in one page"
NO_MAIN_TEXT = "no main text"


def read_html(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """One page: its main text."""
    data = stream.read(PAGE_LIMIT + 1)
    if len(data) > PAGE_LIMIT:
        raise TooLargeError(f"more than {PAGE_LIMIT // MEBIBYTE} MiB in one page")
    yield page_text(path, data, reading)


def page_text(
    origin: str, data: bytes, reading: ReaderContext, *, url: str = "", date: str = "", encoding: str | None = None
) -> Extracted | Unreadable:
    """The main text of a page that was found at `origin`; `encoding` is what the server said."""
    if looks_binary(data[:8192]):
        return Unreadable(origin, "binary")
    if data.count(b"<") > _TAGS:
        return Unreadable(origin, "too large", _TOO_MANY_TAGS)
    text = main_text(data, url=url, profile=reading.rules.extraction, encoding=encoding)
    return Extracted(origin, text, url=url, date=date) if text else Unreadable(origin, NO_MAIN_TEXT)


def whole_text(data: bytes, encoding: str = "") -> str:
    """All the text of a page that has no navigation to lose: a chapter of a book, a mail.

    Raises:
        RecursionError: elements nested without end.
        TooLargeError: more elements than fit into memory.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    if data.count(b"<") > _TAGS:
        raise TooLargeError(_TOO_MANY_TAGS)
    page = HTMLTree.parse(data.decode(encoding or detect_encoding(data, html=True), "replace"))
    if page.document is not None and page.document.query_selector(_TOO_DEEP):
        raise RecursionError
    return str(extract_plain_text(page, main_content=False, alt_texts=False, links=False))


def render_html(text: str) -> str:
    """A record's text with its tags rendered; its own paragraphs stay, which HTML would run together."""
    from resiliparse.extract.html2text import extract_plain_text

    paragraphs = (extract_plain_text(part, alt_texts=False, links=False) for part in text.split("\n\n"))
    return "\n\n".join(paragraphs)
