"""HTML: the main text of a page."""

from __future__ import annotations

from typing import BinaryIO

from groundup.corpus.formats.base import Extracted, Found, Reading, Unreadable
from groundup.corpus.streams import detect_encoding, looks_binary, read_whole

_NESTING_LIMIT = 512  # of elements, as in browsers: the time to find the main content grows with its square
_TOO_DEEP = ">".join("*" * (_NESTING_LIMIT + 1))


def read_html(path: str, stream: BinaryIO, _: Reading) -> Found:
    """One page: its main text."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    data = read_whole(stream)
    if looks_binary(data[:8192]):
        yield Unreadable(path, "binary")
        return
    page = HTMLTree.parse(data.decode(detect_encoding(data, html=True), "replace"))
    if page.document is not None and page.document.query_selector(_TOO_DEEP):
        yield Unreadable(path, "too deeply nested")
        return
    yield Extracted(path, extract_plain_text(page, main_content=True, alt_texts=False, links=False))


def whole_text(data: bytes, encoding: str = "") -> str:
    """All the text of a page that has no navigation to lose: a chapter of a book, a mail.

    Raises:
        RecursionError: elements nested without end.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    page = HTMLTree.parse(data.decode(encoding or detect_encoding(data, html=True), "replace"))
    if page.document is not None and page.document.query_selector(_TOO_DEEP):
        raise RecursionError
    return str(extract_plain_text(page, main_content=False, alt_texts=False, links=False))


def render(text: str) -> str:
    """A record's text with its tags rendered; its own paragraphs stay, which HTML would run together."""
    from resiliparse.extract.html2text import extract_plain_text

    paragraphs = (extract_plain_text(part, alt_texts=False, links=False) for part in text.split("\n\n"))
    return "\n\n".join(paragraphs)
