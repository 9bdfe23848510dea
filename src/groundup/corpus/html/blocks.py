"""Parse a page into text blocks in reading order, and into the block elements that enclose them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

# Words in several languages that indicate boilerplate if they occur anywhere in a class name or an id.
_ALWAYS = re.compile(
    r"com+ent|kommentar|disqus|livefyre|respond\b|replies|feedback|shar(?:e|ing)|partage|teilen|social"
    r"|relat(?:ed|ion)|relacionad|verwandt|recommend|popular|trending|most-?read|more-?(?:news|stories|from)"
    r"|read-?more|also-?(?:like|read)|newsletter|subscri|sign-?(?:in|up)|log-?in|cookie|consent|popup|modal"
    r"|breadcrumb|side-?bar|masthead|footer|foot\b|navigation|navbox|catlinks|mw-jump|pagination|pager|tool-?(?:bar|box)"
    r"|promo|sponsor|advert|publici[dt]|werbung|anzeige|outbrain|taboola|widget|banner|teaser|carousel|slideshow|gallery"
    r"|caption|byline|tag-?list|tag-?cloud|infobox|metadata|ambox|quiz",
    re.IGNORECASE,
)
# Words that indicate boilerplate only if they are a whole word of a class name or an id, and if no other part of the
# name indicates content.
_DOUBTFUL = re.compile(
    r"(?:^|[\s_-])(?:nav|menu|ads?|toc|tags?|date|links?|header|navbar|topnav|bottom|external|rel|aside|tools?|print|rating"
    r"|author|bio|skip|hidden|meta|credits?|copyright|disclaimer|tagline|dateline|timestamp|pub-?date|search|poll)(?:$|[\s_-])",
    re.IGNORECASE,
)
_CONTENT = re.compile(r"article|body|content|entry|main|post|story|text", re.IGNORECASE)
_COMMENTS = re.compile(r"com+ent|kommentar|disqus|livefyre|respond|replies|feedback", re.IGNORECASE)
_NOISE = re.compile(r"editsection|headerlink|permalink|visually-?hidden|sr-only|screen-reader", re.IGNORECASE)
_TAGS = frozenset(("address", "aside", "figcaption", "header"))
_ROLES = frozenset(
    ("alert", "banner", "complementary", "contentinfo", "dialog", "menu", "menubar", "navigation", "search", "toolbar")
)
_MAX_NAME_CHARACTERS = 1000  # maximum number of characters of class names and ids to check
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def is_boilerplate(element: Any, tag: str, names: str) -> bool:
    """Return whether a block element looks like boilerplate.

    Args:
        element: The lxml element.
        tag: Tag name of the element.
        names: Class attribute of the element.
    """
    if tag in _TAGS or element.get("role") in _ROLES:
        return True
    if element.get("hidden") is not None or element.get("aria-hidden") == "true":
        return True
    if (style := element.get("style")) and _HIDDEN.search(style):
        return True
    if tag in ("main", "article"):
        return False
    if identifier := element.get("id"):
        names = f"{names} {identifier}"
    return bool(names) and _named_boilerplate(names[:_MAX_NAME_CHARACTERS])


@lru_cache(maxsize=4096)  # results are cached, because the pages of a site share class names
def _named_boilerplate(names: str) -> bool:
    return _ALWAYS.search(names) is not None or (_DOUBTFUL.search(names) is not None and _CONTENT.search(names) is None)


def is_comments(element: Any, names: str) -> bool:
    """Return whether the class or id of a block element indicates that it contains comments by readers."""
    return _COMMENTS.search(f"{names} {element.get('id') or ''}"[:_MAX_NAME_CHARACTERS]) is not None


@lru_cache(maxsize=4096)
def _named_noise(names: str) -> bool:
    return _NOISE.search(names) is not None


def is_noise(tag: str, names: str) -> bool:
    """Return whether an inline element is not part of its sentence, such as an edit link or a footnote number."""
    return _named_noise(names[:_MAX_NAME_CHARACTERS]) or (tag == "sup" and "reference" in names)


HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_INLINE = frozenset((
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "kbd", "label", "mark", "nobr", "picture", "q", "rb", "rp", "rt", "ruby", "s", "samp", "small", "source",
    "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
))  # fmt: skip
_SKIPPED = frozenset((
    "applet", "area", "audio", "base", "button", "canvas", "datalist", "dialog", "embed", "footer", "frame",
    "frameset", "head", "iframe", "input", "link", "map", "math", "menu", "meta", "nav", "noembed", "noframes",
    "noscript", "object", "optgroup", "option", "param", "progress", "script", "select", "style", "svg", "template",
    "textarea", "title", "track", "video",
))  # fmt: skip

# If an element such as <p> or <div> is inside a block of one of these kinds, the element has the same kind. For
# example, a paragraph in a list item is treated as a list item.
_KINDS = frozenset(("li", "dd", "dt", "pre", "blockquote"))
_TRANSPARENT = frozenset(("article", "center", "div", "p", "section", "span"))
MAX_DEPTH = 150  # maximum nesting depth of elements; elements that are nested more deeply are read as unstructured text
_SPACE = re.compile(r"\s+")
_INVISIBLE = str.maketrans("", "", "\u00ad\u200b\u2060\ufeff")


@dataclass(slots=True, eq=False)
class Node:
    """A block element of a page.

    `groundup.corpus.html.content` computes the numeric attributes from the text blocks inside the element.

    Attributes:
        parent: The enclosing block element, or None for the body.
        tag: Tag name of the element.
        names: Class attribute of the element, which is compared with the class attributes of siblings.
        boilerplate: Whether the element and its content are boilerplate.
        comments: Whether the element contains comments by readers.
        weight: Sum of the weights of the paragraphs inside the element.
        prose: Number of characters outside links, in paragraphs that vote.
        length: Number of characters in text blocks that are not boilerplate.
        paragraphs: Number of paragraphs that vote.
        score: Sum of the votes for the element. The vote of a paragraph decreases with its distance to the element.
        kept: Whether the element is part of the main text.
    """

    parent: Node | None
    tag: str
    names: str = ""
    boilerplate: bool = False
    comments: bool = False
    weight: float = field(default=0.0, init=False)
    prose: int = field(default=0, init=False)
    length: int = field(default=0, init=False)
    paragraphs: int = field(default=0, init=False)
    score: float = field(default=0.0, init=False)
    kept: bool = field(default=False, init=False)


@dataclass(slots=True, eq=False)
class TextBlock:
    """A paragraph, a heading, a list item, a table cell, or code.

    Attributes:
        text: The text.
        linked: Number of characters that are inside links.
        kind: Tag name that determines the type of the block, such as "p" or "li".
        node: The enclosing block element.
    """

    text: str
    linked: int
    kind: str
    node: Node


class HtmlPage:
    """A parsed page.

    Attributes:
        blocks: The text blocks in reading order.
        nodes: The block elements, parents before children.
        root: The body of the page.
    """

    def __init__(self, body: Any) -> None:
        self.blocks: list[TextBlock] = []
        self.root = Node(None, "body")
        self.nodes = [self.root]
        self._pieces: list[str] = []
        self._linked = 0
        self._in_link = 0
        self._read(body, self.root, "p", 0)
        self._end_block("p", self.root)

    def _add(self, text: str) -> None:
        self._pieces.append(text)
        if self._in_link:
            self._linked += len(text.strip())

    def _end_block(self, kind: str, node: Node) -> None:
        if not self._pieces:
            return
        text = "".join(self._pieces)
        if not text.isascii():
            text = text.translate(_INVISIBLE)
        text = text.strip("\n").rstrip() if kind == "pre" else _SPACE.sub(" ", text).strip()
        if text:
            self.blocks.append(TextBlock(text, self._linked, kind, node))
        self._pieces, self._linked = [], 0

    def _read(self, element: Any, node: Node, kind: str, depth: int) -> None:
        """Read the content of an element, and add text blocks with this node and this kind."""
        after_break = False
        is_code = kind == "pre"
        if (text := element.text) and (is_code or self._pieces or not text.isspace()):
            self._add(text)
        for child in element:
            tag = child.tag
            if tag == "br":
                if is_code:
                    self._pieces.append("\n")
                elif after_break:  # two consecutive line breaks end a paragraph
                    self._end_block(kind, node)
                else:
                    self._pieces.append(" ")
                after_break = True
            elif isinstance(tag, str) and tag not in _SKIPPED:
                if depth >= MAX_DEPTH:
                    self._add(_text_of(child))
                elif tag in _INLINE or ":" in tag:
                    names = child.get("class")
                    if not (names and is_noise(tag, names)):
                        self._in_link += tag == "a"
                        if len(child):
                            self._read(child, node, kind, depth + 1)
                        elif text := child.text:
                            self._add(text)
                        self._in_link -= tag == "a"
                else:
                    self._read_block(child, tag, node, kind, depth)
                after_break = False
            if (tail := child.tail) and (is_code or self._pieces or not tail.isspace()):
                self._add(tail)
                after_break = after_break and tail.isspace()

    def _read_block(self, element: Any, tag: str, node: Node, kind: str, depth: int) -> None:
        self._end_block(kind, node)
        names = element.get("class") or ""
        boilerplate = is_boilerplate(element, tag, names)
        inner = Node(node, tag, names, boilerplate, boilerplate and is_comments(element, names))
        self.nodes.append(inner)
        in_link, self._in_link = self._in_link, 0 if tag == "table" else self._in_link
        inner_kind = kind if kind in _KINDS and tag in _TRANSPARENT else tag if tag not in _TRANSPARENT else "p"
        self._read(element, inner, inner_kind, depth + 1)
        self._end_block(inner_kind, inner)
        self._in_link = in_link


def _text_of(element: Any) -> str:
    """Return all text in a deeply nested element, without scripts."""
    from lxml.etree import strip_elements

    strip_elements(element, "script", "style", "noscript", with_tail=False)
    return "".join(element.itertext())
