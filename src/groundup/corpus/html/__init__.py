"""HTML: the main text of a web page, without its menus, its advertisements and its readers' comments."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any, Literal

from groundup.corpus.html.blocks import HtmlPage, TextBlock
from groundup.corpus.html.content import main_blocks, text_length
from groundup.corpus.streams import detect_encoding

__all__ = ["Profile", "decode", "main_text"]

Profile = Literal["fast", "best"]
_DOUBTFUL = 600  # letters: what is shorter may be a part of the text only, or none of it
_LONG = 5000  # letters: a wrong end is a small part of what is longer, and a second opinion takes long
_LARGE = 1 << 20  # characters of a page for which there is no second opinion, since it could take minutes
_DISPUTED = 0.3  # of a text may be cut off because of the second opinion
_LINES = frozenset(("dd", "dt", "li", "pre", "td", "th"))  # follow each other without a blank line
_TAG = re.compile("<[a-zA-Z!/?]")
_LONG_TAG = re.compile(r"<[a-zA-Z][^<>]{4000,}")
_ATTRIBUTES = 300  # of one element: the parser compares each with all before it


def main_text(page: str | bytes, *, url: str = "", profile: Profile = "fast", encoding: str | None = None) -> str:
    """The main text of a page; "" if it has none.

    Paragraphs are divided by blank lines; list items ("- "), table rows ("a | b") and lines of code follow each other.
    Whatever the page is, nothing is raised, and the time grows in proportion to its size.

    Args:
        page: HTML; bytes are decoded (see `decode`).
        url: where it is from, for the second opinion of "best".
        profile: "fast": our own extractor. "best": where its text is not long, trafilatura (Barbaresi, ACL 2021) is
            asked, too: what that has not is cut off from the end, and its text is taken where our own found little.
        encoding: what the server said of bytes.
    """
    text = decode(page, encoding) if isinstance(page, bytes) else page
    if not _TAG.search(text):
        return text.strip()
    text = _LONG_TAG.sub(lambda tag: tag[0] if tag[0].count("=") < _ATTRIBUTES else "<br", text)
    body = _body(text)
    blocks = [] if body is None else main_blocks(HtmlPage(body))
    found = sum(text_length(block.text) for block in blocks)
    if profile == "fast" or found > _LONG or len(text) > _LARGE:
        return _rendered(blocks)
    second = _second_opinion(text, url)
    if found < _DOUBTFUL and text_length(second) > 1.5 * found:
        return second
    return _rendered(_agreed(blocks, second))


def decode(data: bytes, encoding: str | None = None) -> str:
    """Text of a page: by its byte order mark, by what the server said if that is possible, else by what fits."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    if encoding and not data.startswith((b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")):
        try:
            return data.decode(map_encoding_to_html5(encoding, fallback_utf8=False) or "utf-8")
        except (LookupError, UnicodeDecodeError):
            pass  # servers often say what is the same for all their pages
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


def _second_opinion(text: str, url: str) -> str:
    from lxml.etree import LxmlError
    from trafilatura import extract

    try:
        return extract(text, url=url or None, include_comments=False, fast=True) or ""
    except (LxmlError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return ""  # it has no opinion on a page that it has not foreseen


def _agreed(blocks: list[TextBlock], second: str) -> list[TextBlock]:
    """The blocks up to the last one that the second opinion has, too, if that is most of them."""
    theirs = _letters(second)
    end = next((at for at in range(len(blocks), 0, -1) if _letters(blocks[at - 1].text) in theirs), 0)
    most = (1 - _DISPUTED) * sum(len(block.text) for block in blocks)
    return blocks[:end] if sum(len(block.text) for block in blocks[:end]) >= most else blocks


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()
