"""Extract the main text of web pages, without menus, advertisements and comments."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any, Literal

from groundup.corpus.html.blocks import HtmlPage, TextBlock
from groundup.corpus.html.content import main_blocks, text_length
from groundup.corpus.streams import detect_encoding

__all__ = ["Profile", "decode", "main_text"]

Profile = Literal["fast", "best"]
_MIN_RELIABLE = 600  # characters; shorter results may miss the text
_MAX_RECHECKED = 5000  # characters; in longer texts a wrong end matters less, and trafilatura is slow
_MAX_PAGE_CHARACTERS = 1 << 20  # trafilatura could take minutes for larger pages
_MAX_TRIMMED = 0.3  # fraction of a text to trim because trafilatura does not have it
_LINES = frozenset(("dd", "dt", "li", "pre", "td", "th"))  # not separated by blank lines
_TAG = re.compile("<[a-zA-Z!/?]")
_LONG_TAG = re.compile(r"<[a-zA-Z][^<>]{4000,}")
_MAX_ATTRIBUTES = 300  # per element; the parser takes quadratic time in them


def main_text(page: str | bytes, *, url: str = "", profile: Profile = "fast", encoding: str | None = None) -> str:
    """Extract the main text of a page.

    Blank lines separate paragraphs, but not list items ("- "), table rows ("a | b") and lines of code. Malformed pages
    do not raise, and the time is linear in the size of the page.

    Args:
        page: HTML; bytes are decoded (see `decode`).
        url: URL of the page, for trafilatura.
        profile: "fast" uses our extractor. "best" also runs trafilatura (Barbaresi, ACL 2021) if the text is short. It
            removes a trailing part that trafilatura does not have, or uses trafilatura's text if that is much longer.
        encoding: Encoding that the server declared.

    Returns:
        The text, or "" if the page has none.
    """
    text = decode(page, encoding) if isinstance(page, bytes) else page
    if not _TAG.search(text):
        return text.strip()
    text = _LONG_TAG.sub(lambda tag: tag[0] if tag[0].count("=") < _MAX_ATTRIBUTES else "<br", text)
    body = _body(text)
    blocks = [] if body is None else main_blocks(HtmlPage(body))
    found = sum(text_length(block.text) for block in blocks)
    if profile == "fast" or found > _MAX_RECHECKED or len(text) > _MAX_PAGE_CHARACTERS:
        return _rendered(blocks)
    reference = _trafilatura_text(text, url)
    if found < _MIN_RELIABLE and text_length(reference) > 1.5 * found:
        return reference
    return _rendered(_trim(blocks, reference))


def decode(data: bytes, encoding: str | None = None) -> str:
    """Decode a page by its byte order mark, the declared encoding if it is valid, or detection, in this order.

    Args:
        data: The page.
        encoding: Encoding that the server declared.

    Returns:
        The text. Invalid bytes become U+FFFD.
    """
    from resiliparse.parse.encoding import map_encoding_to_html5

    if encoding and not data.startswith((b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")):
        try:
            return data.decode(map_encoding_to_html5(encoding, fallback_utf8=False) or "utf-8")
        except (LookupError, UnicodeDecodeError):
            pass  # servers often declare a wrong encoding
    return data.decode(detect_encoding(data, html=True), "replace")


def _body(text: str) -> Any:
    from lxml.etree import HTMLParser, LxmlError, fromstring

    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = fromstring(text.encode("utf-8", "replace"), parser)
    except (LxmlError, ValueError, AssertionError):  # a document without any element
        return None
    if root is None:
        return None
    body = root.find("body")
    return root if body is None else body


def _rendered(blocks: list[TextBlock]) -> str:
    parts: list[str] = []
    previous = None
    for row, cells in groupby(blocks, lambda block: block.node.parent if block.kind in ("td", "th") else block):
        group = list(cells)
        kind = group[0].kind
        if row is not None and previous is not None:
            parts.append("\n" if kind in _LINES and previous in _LINES else "\n\n")
        parts.append(" | ".join(("- " if kind == "li" else "") + block.text for block in group))
        previous = kind
    return "".join(parts)


def _trafilatura_text(text: str, url: str) -> str:
    from lxml.etree import LxmlError
    from trafilatura import extract

    try:
        return extract(text, url=url or None, include_comments=False, fast=True) or ""
    except (LxmlError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return ""  # trafilatura fails on some pages


def _trim(blocks: list[TextBlock], reference: str) -> list[TextBlock]:
    """Remove the blocks after the last one that `reference` has, unless that removes too much text."""
    reference_letters = _letters(reference)
    end = next((at for at in range(len(blocks), 0, -1) if _letters(blocks[at - 1].text) in reference_letters), 0)
    minimum = (1 - _MAX_TRIMMED) * sum(len(block.text) for block in blocks)
    return blocks[:end] if sum(len(block.text) for block in blocks[:end]) >= minimum else blocks


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()
