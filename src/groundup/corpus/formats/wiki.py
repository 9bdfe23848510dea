"""Read MediaWiki dumps, for example of Wikipedia. Each article of a dump becomes one text."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import quote

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.formats.xml import elements

_MAX_DEPTH = 40  # maximum nesting depth of brackets; content that is nested more deeply is dropped

_DROPPED = (
    "ref", "references", "gallery", "timeline", "imagemap", "score", "graph", "mapframe", "maplink", "section",
    "templatestyles", "hiero",
)  # fmt: skip
_VERBATIM = ["nowiki", "pre", "source", "syntaxhighlight", "code", "math", "chem", "ce"]
_ELEMENT = re.compile(
    rf"<!--|-->|<(?P<end>/?)(?P<name>{'|'.join([*_DROPPED, *_VERBATIM])})\b(?P<rest>[^<>]{{0,1000}})>", re.IGNORECASE
)
_BRACKET = re.compile(r"\{{2,}|\}{2,}|\[\[|\]\]|\{\||\|\}(?!\})|\[(?=(?:https?:|ftp:|mailto:|news:)?//|mailto:)|\]")
_OPENS = {"{{": "}}", "{{{": "}}}", "[[": "]]", "{|": "|}", "[": "]"}
_CLOSES = {closing: opening for opening, closing in _OPENS.items()}
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>")
_BREAK = re.compile(r"<(?:br|p|/p|/div|hr)\b[^<>]{0,100}>", re.IGNORECASE)
_QUOTES = re.compile(r"'{2,}")
_MAGIC = re.compile(r"__[A-ZА-Я_]{3,30}__")
_LIST = re.compile(r"([*#:;]+)[ \t]*")
_EMPTY_PARENTHESES = re.compile(r"\([\s,;:/–-]{0,50}\)")
_DANGLING_START = re.compile(r"\((?:[ \t]{1,5}[,;:]?|[,;:])[ \t]*")
_DANGLING_END = re.compile(r"[,;:][ \t]{0,5}\)")
_SPACE_BEFORE = re.compile(r"[ \t](?=[,.;:)](?:\s|$))")
_SPACES = re.compile(r"[ \t]{2,}")
_INTERWIKI = re.compile(r"[a-z]{2,3}(?:-[a-z-]{2,12})?$|simple$")
_EXTERNAL_LINK = "\x02"  # character that marks the label of an external link

# A list item that starts with one of these strings is only a link or the rest of a citation.
_REFERENCES = (_EXTERNAL_LINK, ",", ".", ")")
_LIST_HEADING_LEVEL = 7  # level of a heading that is a list item, lower than the levels of all other headings

# Characters that have a special meaning in wikitext, and the characters that replace them temporarily in verbatim text.
_ESCAPES = dict(zip("[]{}|='*#:;<>_&", map(chr, range(0xE000, 0xE00F)), strict=True))
_ESCAPE = str.maketrans(_ESCAPES)
_UNESCAPE = {escaped: plain for plain, escaped in _ESCAPES.items()}
_IS_ESCAPED = re.compile(f"[{min(_UNESCAPE)}-{max(_UNESCAPE)}]")


def plain_text(wikitext: str, hidden_prefixes: Set[str]) -> str:
    """Convert wikitext to plain text.

    Paragraphs, headings and lists are kept. References, boxes, tables and images are dropped.

    Args:
        wikitext: The source of an article.
        hidden_prefixes: Lower-case prefixes of links that are not shown as text, such as "file" and "category".
    """
    text = _without_elements(_IS_ESCAPED.sub("", wikitext))
    text = _MAGIC.sub("", _QUOTES.sub("", _without_brackets(text, hidden_prefixes)))
    text = html.unescape(_TAG.sub("", _BREAK.sub("\n", text))).replace("\xa0", " ")
    text = _EMPTY_PARENTHESES.sub("", _DANGLING_END.sub(")", _DANGLING_START.sub("(", text)))
    text = _SPACE_BEFORE.sub("", _SPACES.sub(" ", text))
    text = "\n".join(_without_empty_sections(_lines(text)))
    return _IS_ESCAPED.sub(lambda escaped: _UNESCAPE[escaped[0]], text).strip()


def _without_elements(text: str) -> str:
    """Drop comments, references and similar elements with their content, and escape verbatim text."""
    kept: list[str] = []
    at = 0
    opened, opened_end = "", 0  # name of the outermost open element, and start of its content
    for tag in _ELEMENT.finditer(text):
        name = (tag["name"] or "<!--").lower()
        if tag.start() < at:
            continue
        ends = tag[0] == "-->" or bool(tag["end"])
        if opened:
            if not ends or name != opened:
                continue
            if opened in _VERBATIM:
                inner = text[opened_end : tag.start()].translate(_ESCAPE)
                kept.append(f"${inner.strip()}$" if opened == "math" else inner)
            at, opened = tag.end(), ""
        elif not ends:
            kept.append(text[at : tag.start()])
            at = tag.end()
            if not (tag["rest"] or "").rstrip().endswith("/"):
                opened, opened_end = name, tag.end()
    if opened == "<!--":  # MediaWiki also hides the text after a comment that is never closed
        return "".join(kept)
    return "".join(kept) + text[opened_end if opened else at :]


def _without_brackets(text: str, hidden_prefixes: Set[str]) -> str:
    """Replace templates, tables and links by their visible text, starting with the innermost brackets."""
    frames = _Frames(hidden_prefixes)
    at = 0
    for bracket in _BRACKET.finditer(text):
        frames.write(text[at : bracket.start()])
        at = bracket.end()
        kind, length = bracket[0][0], at - bracket.start()
        if kind == "{" and length > 1 and bracket[0][1] == "{":  # "{{{{{" opens a template that starts with a parameter
            for _ in range((length - 3 * (length % 2)) // 2):
                frames.open("{{")
            if length % 2:
                frames.open("{{{")
        elif kind == "}":
            while length > 1:
                length -= frames.close_braces(length)
        elif bracket[0] in _OPENS:
            frames.open(bracket[0])
        else:
            frames.close(_CLOSES[bracket[0]])
    frames.write(text[at:])
    return frames.text()


class _Frames:
    """Stack of open brackets. Each entry on the stack contains the text since the opening bracket."""

    def __init__(self, hidden_prefixes: Set[str]) -> None:
        self._hidden_prefixes = hidden_prefixes
        self._stack: list[tuple[str, list[str]]] = [("", [])]
        self._open = dict.fromkeys(_OPENS, 0)
        self._braces: list[str] = []

    def write(self, text: str) -> None:
        self._stack[-1][1].append(text)

    def open(self, bracket: str) -> None:
        self._stack.append((bracket, []))
        self._open[bracket] += 1
        if bracket in ("{{", "{{{"):
            self._braces.append(bracket)

    def close_braces(self, length: int) -> int:
        """Close the innermost template or parameter, and return the number of braces used."""
        if not self._braces:
            return length
        bracket = self._braces[-1]
        self.close(bracket)
        return min(length, len(bracket))

    def close(self, bracket: str) -> None:
        """Close the innermost bracket of this kind.

        If a bracket inside is never closed, the content of this bracket is kept.
        """
        if not self._open[bracket]:
            if bracket == "[":
                self.write("]")
            return
        while True:
            opened, parts = self._stack.pop()
            self._open[opened] -= 1
            if opened in ("{{", "{{{"):
                self._braces.pop()
            inside = "".join(parts)
            if opened == bracket:
                break
            self.write(inside)
        if len(self._stack) <= _MAX_DEPTH:
            self.write(_render(bracket, inside, self._hidden_prefixes))

    def text(self) -> str:
        """Return the converted text. The content of unclosed brackets is kept."""
        return "".join(part for _, parts in self._stack for part in parts)


def _render(bracket: str, inside: str, hidden_prefixes: Set[str]) -> str:
    if bracket == "[[":
        return _link(inside, hidden_prefixes)
    if bracket == "[":
        label = inside.partition(" ")[2].strip()
        return _EXTERNAL_LINK + label if label else ""
    return _template(inside) if bracket == "{{" else ""


def _link(inside: str, hidden_prefixes: Set[str]) -> str:
    target, bar, label = inside.partition("|")
    prefix, colon, _ = target.partition(":")
    prefix = prefix.strip().lower()
    if colon and prefix in hidden_prefixes:
        return ""
    if colon and not bar and _INTERWIKI.fullmatch(prefix):  # a link to the same article in another language
        return ""
    return label if bar else target.lstrip(":")


# Functions that return the visible text of an inline template. Templates that are not in this table, such as info boxes
# and notes, are dropped.


def _first(values: list[str]) -> str:
    return values[0]


def _second(values: list[str]) -> str:
    return values[1] if len(values) > 1 else values[0]


def _last(values: list[str]) -> str:
    return values[-1]


def _spaced(values: list[str]) -> str:
    return " ".join(values[:3])


def _quantity(values: list[str]) -> str:
    """Render {{convert|5|km|mi}} as "5 km" and {{convert|5|to|10|km}} as "5 to 10 km"."""
    is_range = len(values) > 3 and values[1] in ("to", "and", "or", "by", "x", "-", "–", "to(-)", "+/-", "±")
    return " ".join(values[: 4 if is_range else 2])


def _fraction(values: list[str]) -> str:
    return " ".join([*values[:-2], "/".join(values[-2:])])


_BY_RENDERER: tuple[tuple[Callable[[list[str]], str], str], ...] = (
    (
        _first,
        """nowrap nobr nobreak nowrapl small big smaller larger large em strong bold italic i b u s sic abbr
        tooltip math mvar sup sub quote blockquote cquote quotation bq centered center ill
        interlanguage_link flag flagu flagcountry mono code tt resize font keypress key overline underline
        strikethrough strike unicode script linktext formatnum proper_name noitalic lc uc ucfirst lcfirst sc
        smallcaps angbr visible_anchor vanchor val chem2""",
    ),
    (_second, "lang langx rtl-lang color colored_link font_color wikt wiktionary wikt-lang"),
    (_last, "transl transliteration script/hebrew"),
    (_quantity, "convert cvt"),
    (_fraction, "frac fraction sfrac"),
    (_spaced, "ship uss hms ss"),
    (lambda values: f"c. {values[0]}", "circa c. c ca."),
    (lambda values: f"As of {values[0]}", "as_of"),
    ("".join, "chem"),
    (lambda values: "r. " + "–".join(values[:2]), "reign"),
    (lambda values: f"{values[0]} ({', '.join(values[1:3])})" if len(values) > 1 else values[0], "nihongo"),
)
_RENDERERS = {name: render for render, names in _BY_RENDERER for name in names.split()}
_CHARACTERS = {
    "!": "|", "=": "=", "'": "'", "'s": "'s", "ndash": "–", "spaced_ndash": " – ", "snd": " – ", "spnd": " – ",
    "mdash": "—", "nbsp": " ", "spaces": " ", "pi": "π", "euro": "€", "gbp": "£", "dot": " · ", "·": " · ", "•": " • ",
    "okina": "ʻ", "hamza": "ʼ", "\"'": "\"'", "'\"": "'\"", "degree": "°", "prime": "′", "sharp": "♯", "flat": "♭",
}  # fmt: skip


def _template(inside: str) -> str:
    name, *arguments = inside.split("|")
    name = name.strip().lower().replace(" ", "_")
    if name in _CHARACTERS:
        return _CHARACTERS[name]
    if ":" in name and not arguments:  # {{formatnum:1234}}
        name, _, argument = name.partition(":")
        arguments = [argument]
    show = _RENDERERS.get(name) or (_first if name.startswith(("lang-", "lang_")) else None)
    if show is None:
        return ""
    values = [value for argument in arguments if (value := _positional(argument))]
    return show(values) if values else ""


def _positional(argument: str) -> str:
    """Return the text of a template argument, or "" if the argument is an option such as "abbr=on".

    The arguments "1=...", "text=..." and "quote=..." are not options.
    """
    name, equals, value = argument.partition("=")
    name = name.strip().lower()
    if not equals or not re.fullmatch(r"[\w -]{1,30}", name):
        return argument.strip()
    return value.strip() if name.isdigit() or name in ("text", "quote") else ""


# Lines


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the heading level (0 if the line is not a heading) and the text of each line.

    Wiki list markers are converted to "- " or numbers.
    """
    number = 0
    for line in text.split("\n"):
        line = line.strip()
        if level := _heading_level(line):
            yield level, line[level:-level].replace(_EXTERNAL_LINK, "").strip()
            continue
        item = _LIST.match(line)
        if item is None or item.end() == len(line):
            number = 0
            yield 0, "" if item else line.replace(_EXTERNAL_LINK, "")
            continue
        content = line[item.end() :]
        if item[1] == ";" and content:
            yield _LIST_HEADING_LEVEL, content.replace(_EXTERNAL_LINK, "")
            continue
        if item[1][-1] in "*#" and content.startswith(_REFERENCES):
            continue
        number = number + 1 if item[1] == "#" else 0
        mark = f"{number}. " if number else "- " if item[1][-1] in "*#" else ""
        yield 0, "  " * (len(item[1]) - 1 if mark else 0) + mark + content.replace(_EXTERNAL_LINK, "")


def _heading_level(line: str) -> int:
    inner = line.strip("=")
    level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
    return level if inner.strip() else 0


def _without_empty_sections(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    """Drop the headings of sections that have no content, because they had only references or tables."""
    pending: list[tuple[int, str]] = []
    blank = True
    for level, line in lines:
        if level:
            while pending and pending[-1][0] >= level:
                pending.pop()
            pending.append((level, line))
        elif line:
            for _, heading in pending:
                yield from ("", heading, "")
            if blank and not pending:
                yield ""
            pending, blank = [], False
            yield line
        else:
            blank = True


_REDIRECT = re.compile(r"\s*#\s*\w{1,30}\s*:?\s*\[\[[^\]\n]{1,300}\]\]", re.IGNORECASE)
# Namespace numbers; the names of the namespaces depend on the language of the wiki.
_FILES, _CATEGORIES, _MEDIA = 6, 14, -2


@dataclass(slots=True)
class _Page:
    title: str = ""
    namespace: int = 0
    is_redirect: bool = False
    model: str = "wikitext"
    text: str = ""
    date: str = ""


@dataclass(slots=True)
class _Site:
    base: str = ""
    namespaces: dict[int, str] = field(default_factory=dict)

    @property
    def hidden_prefixes(self) -> frozenset[str]:
        """Lower-case prefixes of links to files and categories."""
        local = (self.namespaces.get(number, "") for number in (_FILES, _CATEGORIES, _MEDIA))
        return frozenset({"file", "image", "category", "media", *(name.lower() for name in local)})

    def url(self, title: str) -> str:
        """Return the URL of an article."""
        return f"{self.base.rpartition('/')[0]}/{quote(title.replace(' ', '_'), safe='/:,()')}" if self.base else ""

    def namespace_of(self, title: str) -> int:
        """Return the namespace number of a title.

        Dumps from before 2012 do not store the namespace number in an `ns` element.
        """
        prefix = title.partition(":")[0]
        return next((number for number, name in self.namespaces.items() if name and name == prefix), 0)


def read_wiki(path: str, stream: BinaryIO, _: ReaderContext) -> Found:
    """Yield the title and the last revision of each article in an XML dump.

    An `Unreadable` is yielded for each redirect and each page of another namespace (talk, users, templates,
    categories).
    """
    site = _Site()
    for page in _pages(stream, site):
        origin = f"{path}#{page.title}"
        if page.namespace != 0:
            kind = site.namespaces.get(page.namespace, "") or f"namespace {page.namespace}"
            yield Unreadable(origin, f"not an article: {kind}")
        elif page.is_redirect or _REDIRECT.match(page.text):
            yield Unreadable(origin, "redirect")
        elif page.model != "wikitext":
            yield Unreadable(origin, f"not an article: {page.model}")
        elif text := plain_text(page.text, site.hidden_prefixes):
            yield Extracted(origin, f"{page.title}\n\n{text}", url=site.url(page.title), date=page.date)
        else:
            yield Unreadable(origin, "no text", page.text[:200])


def _pages(stream: BinaryIO, site: _Site) -> Iterator[_Page]:
    """Yield all pages of a wiki dump."""
    page = _Page()
    has_namespace = False
    for event, name, element in elements(stream):
        if event == "start":
            if name == "page":
                page, has_namespace = _Page(), False
            elif name == "redirect":
                page.is_redirect = True
            continue
        text = element.text or ""
        if name == "title":
            page.title = text
        elif name == "ns" and text.lstrip("-").isdigit():
            page.namespace, has_namespace = int(text), True
        elif name == "model":
            page.model = text
        elif name == "timestamp":
            page.date = text
        elif name == "text":
            page.text = text
        elif name == "base":
            site.base = text
        elif name == "namespace":
            key = element.get("key", "")
            if key.lstrip("-").isdigit():
                site.namespaces[int(key)] = text
        elif name == "page":
            if not has_namespace:
                page.namespace = site.namespace_of(page.title)
            yield page
