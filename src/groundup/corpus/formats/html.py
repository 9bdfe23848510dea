"""Extract the text of HTML files."""

from __future__ import annotations

from typing import BinaryIO

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.html import main_text
from groundup.corpus.streams import MEBIBYTE, TooLargeError, detect_encoding, looks_binary

_MAX_NESTING = 512  # maximum nesting depth of elements, as in browsers; the rendering time is quadratic in the depth
_TOO_DEEP = ">".join("*" * (_MAX_NESTING + 1))
MAX_PAGE_BYTES = 32 * MEBIBYTE  # maximum size of a page in bytes; a parsed page takes about ten times as much memory

# Maximum number of tags in a page; a parsed tag takes 600 bytes, and the longest published standards have half a
# million tags.
_MAX_TAGS = 1_000_000
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
    """Return the main text of a page. `encoding` is the encoding that the server declared."""
    if looks_binary(data[:8192]):
        return Unreadable(origin, "binary")
    if data.count(b"<") > _MAX_TAGS:
        return Unreadable(origin, "too large", _TOO_MANY_TAGS)
    text = main_text(data, url=url, profile=reading.options.extraction, encoding=encoding)
    return Extracted(origin, text, url=url, date=date) if text else Unreadable(origin, NO_MAIN_TEXT)


def whole_text(data: bytes, encoding: str = "") -> str:
    """Return the whole text of a page that contains no navigation, such as a book chapter or an e-mail.

    Args:
        data: The page.
        encoding: Encoding of the page, or "" to detect the encoding.

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
    """Convert the HTML in the text of a record to plain text. Blank lines in the record still separate paragraphs."""
    from resiliparse.extract.html2text import extract_plain_text

    paragraphs = (extract_plain_text(part, alt_texts=False, links=False) for part in text.split("\n\n"))
    return "\n\n".join(paragraphs)
