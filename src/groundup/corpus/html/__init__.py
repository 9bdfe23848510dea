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
# Minimum number of characters of a reliable result; a shorter result may lack a part of the main text.
_MIN_RELIABLE = 600
# Maximum number of characters of a text to check with trafilatura, which is slow. If the end of a longer text is
# boilerplate, this matters less.
_MAX_RECHECKED = 5000
# Maximum number of characters of a page, because trafilatura could take minutes for a larger page.
_MAX_PAGE_CHARACTERS = 1 << 20
_MAX_TRIMMED = 0.3  # maximum fraction of a text to remove because trafilatura's result does not contain it
_LINES = frozenset(("dd", "dt", "li", "pre", "td", "th"))  # elements that are not separated by blank lines
_TAG = re.compile("<[a-zA-Z!/?]")
_LONG_TAG = re.compile(r"<[a-zA-Z][^<>]{4000,}")
# Maximum number of attributes per element, because the parser takes quadratic time in this number.
_MAX_ATTRIBUTES = 300


def main_text(page: str | bytes, *, url: str = "", profile: Profile = "fast", encoding: str | None = None) -> str:
    """Extract the main text of a page.

    Paragraphs are separated by blank lines. List items ("- "), table rows ("a | b") and lines of code are separated by
    line breaks. Malformed pages do not raise errors. The run time is linear in the size of the page.

    Args:
        page: The HTML source. If the source is of type bytes, `decode` decodes the source.
        url: URL of the page, which is passed to trafilatura.
        profile: The profile "fast" uses only the extractor in this package. The profile "best" also runs trafilatura
            (Barbaresi, ACL 2021) if the extracted text is short. If the result of trafilatura is much longer, the
            result of trafilatura is returned. If the result of trafilatura is not much longer, text blocks at the end
            of the page that trafilatura does not extract are removed.
        encoding: Encoding that the server declared.

    Returns:
        The main text, or "" if the page has no main text.
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
    """Decode a page.

    A byte order mark determines the encoding. If there is no byte order mark, the declared encoding is used. If the
    declared encoding is not valid for the page, the encoding is detected.

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
    except (LxmlError, ValueError, AssertionError):  # the document contains no elements
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
        return ""  # trafilatura cannot process some pages


def _trim(blocks: list[TextBlock], reference: str) -> list[TextBlock]:
    """Remove the blocks after the last block that `reference` contains, unless this removes too much text."""
    reference_letters = _letters(reference)
    end = next((at for at in range(len(blocks), 0, -1) if _letters(blocks[at - 1].text) in reference_letters), 0)
    minimum = (1 - _MAX_TRIMMED) * sum(len(block.text) for block in blocks)
    return blocks[:end] if sum(len(block.text) for block in blocks[:end]) >= minimum else blocks


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()
