"""HTML files."""

from __future__ import annotations

from typing import BinaryIO

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.html import main_text
from groundup.corpus.streams import MEBIBYTE, TooLargeError, detect_encoding, looks_binary

_MAX_NESTING = 512  # as in browsers; rendering time is quadratic in it
_TOO_DEEP = ">".join("*" * (_MAX_NESTING + 1))
MAX_PAGE_BYTES = 32 * MEBIBYTE  # a parsed page takes ten times as much
_MAX_TAGS = 1_000_000  # per page; a parsed tag takes 600 bytes, and the longest standards have half as many
_TOO_MANY_TAGS = f"more than {_MAX_TAGS:,} tags in one page"
NO_MAIN_TEXT = "no main text"


def read_html(path: str, stream: BinaryIO, reading: ReaderContext) -> Found:
    """Yield the main text of a page."""
    data = stream.read(MAX_PAGE_BYTES + 1)
    if len(data) > MAX_PAGE_BYTES:
        raise TooLargeError(f"more than {MAX_PAGE_BYTES // MEBIBYTE} MiB in one page")
    yield page_text(path, data, reading)


def page_text(
    origin: str, data: bytes, reading: ReaderContext, *, url: str = "", date: str = "", encoding: str | None = None
) -> Extracted | Unreadable:
    """Return the main text of a page; the server declared `encoding`."""
    if looks_binary(data[:8192]):
        return Unreadable(origin, "binary")
    if data.count(b"<") > _MAX_TAGS:
        return Unreadable(origin, "too large", _TOO_MANY_TAGS)
    text = main_text(data, url=url, profile=reading.rules.extraction, encoding=encoding)
    return Extracted(origin, text, url=url, date=date) if text else Unreadable(origin, NO_MAIN_TEXT)


def whole_text(data: bytes, encoding: str = "") -> str:
    """Return all text of a page without navigation, such as a book chapter or an e-mail.

    Args:
        data: The page.
        encoding: Its encoding; "" detects it.

    Raises:
        RecursionError: Elements are nested too deeply.
        TooLargeError: The page has too many elements.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    if data.count(b"<") > _MAX_TAGS:
        raise TooLargeError(_TOO_MANY_TAGS)
    page = HTMLTree.parse(data.decode(encoding or detect_encoding(data, html=True), "replace"))
    if page.document is not None and page.document.query_selector(_TOO_DEEP):
        raise RecursionError
    return str(extract_plain_text(page, main_content=False, alt_texts=False, links=False))


def render_html(text: str) -> str:
    """Render the HTML tags in the text of a record, and keep its blank lines as paragraphs."""
    from resiliparse.extract.html2text import extract_plain_text

    paragraphs = (extract_plain_text(part, alt_texts=False, links=False) for part in text.split("\n\n"))
    return "\n\n".join(paragraphs)
