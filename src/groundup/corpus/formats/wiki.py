"""Dumps of MediaWiki (Wikipedia and its like): one text an article."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import quote

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.formats.xml import elements

_DEPTH = 40  # levels of brackets in brackets that are shown; what is deeper is dropped

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
_SOURCE = "\x02"  # marks the label of a link to elsewhere
_REFERENCES = (_SOURCE, ",", ".", ")")  # begin the items of lists that are links, or what is left of cited works
_BELOW_ALL = 7  # the level of a heading inside of a list
# Characters that mean something in wikitext, and what stands for them inside of verbatim text until the end.
_HELD = dict(zip("[]{}|='*#:;<>_&", map(chr, range(0xE000, 0xE00F)), strict=True))
_HOLD = str.maketrans(_HELD)
_RELEASE = {held: plain for plain, held in _HELD.items()}
_IS_HELD = re.compile(f"[{min(_RELEASE)}-{max(_RELEASE)}]")


def plain_text(wikitext: str, unseen: Set[str]) -> str:
    """The text that a reader sees: paragraphs, headings, and lists, without references, boxes, tables and pictures.

    Args:
        unseen: prefixes of links that show no text ("file", "category", and in the wiki's own language), in lower case.
    """
    text = _without_elements(_IS_HELD.sub("", wikitext))
    text = _MAGIC.sub("", _QUOTES.sub("", _without_brackets(text, unseen)))
    text = html.unescape(_TAG.sub("", _BREAK.sub("\n", text))).replace("\xa0", " ")
    text = _EMPTY_PARENTHESES.sub("", _DANGLING_END.sub(")", _DANGLING_START.sub("(", text)))
    text = _SPACE_BEFORE.sub("", _SPACES.sub(" ", text))
    text = "\n".join(_without_empty_sections(_lines(text)))
    return _IS_HELD.sub(lambda held: _RELEASE[held[0]], text).strip()


def _without_elements(text: str) -> str:
    """Drop comments, references and the like with what is in them; hold what is verbatim away from all that follows."""
    kept: list[str] = []
    at = 0
    opened, opened_end = "", 0  # the outermost element, if one is open
    for tag in _ELEMENT.finditer(text):
        name = (tag["name"] or "<!--").lower()
        if tag.start() < at:
            continue
        ends = tag[0] == "-->" or bool(tag["end"])
        if opened:
            if not ends or name != opened:
                continue
            if opened in _VERBATIM:
                inner = text[opened_end : tag.start()].translate(_HOLD)
                kept.append(f"${inner.strip()}$" if opened == "math" else inner)
            at, opened = tag.end(), ""
        elif not ends:
            kept.append(text[at : tag.start()])
            at = tag.end()
            if not (tag["rest"] or "").rstrip().endswith("/"):
                opened, opened_end = name, tag.end()
    if opened == "<!--":  # browsers and MediaWiki hide the rest, too
        return "".join(kept)
    return "".join(kept) + text[opened_end if opened else at :]


def _without_brackets(text: str, unseen: Set[str]) -> str:
    """Templates, tables and links to what is seen of them, the inner ones first."""
    frames = _Frames(unseen)
    at = 0
    for bracket in _BRACKET.finditer(text):
        frames.write(text[at : bracket.start()])
        at = bracket.end()
        kind, length = bracket[0][0], at - bracket.start()
        if kind == "{" and length > 1 and bracket[0][1] == "{":  # "{{{{{" begins a template and, in it, a parameter
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
    """Brackets that are open, each with the text so far inside of it."""

    def __init__(self, unseen: Set[str]) -> None:
        self._unseen = unseen
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
        """Close the innermost template or parameter; how many of these closing braces that took."""
        if not self._braces:
            return length
        bracket = self._braces[-1]
        self.close(bracket)
        return min(length, len(bracket))

    def close(self, bracket: str) -> None:
        """Close the innermost of these brackets; others that were opened in it and never closed are text."""
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
        if len(self._stack) <= _DEPTH:
            self.write(_shown(bracket, inside, self._unseen))

    def text(self) -> str:
        """All of it; what is still open is text."""
        return "".join(part for _, parts in self._stack for part in parts)


def _shown(bracket: str, inside: str, unseen: Set[str]) -> str:
    if bracket == "[[":
        return _link(inside, unseen)
    if bracket == "[":
        label = inside.partition(" ")[2].strip()
        return _SOURCE + label if label else ""
    return _template(inside) if bracket == "{{" else ""


def _link(inside: str, unseen: Set[str]) -> str:
    target, bar, label = inside.partition("|")
    prefix, colon, _ = target.partition(":")
    prefix = prefix.strip().lower()
    if colon and prefix in unseen:
        return ""
    if colon and not bar and _INTERWIKI.fullmatch(prefix):  # the same article in another language
        return ""
    return label if bar else target.lstrip(":")


# What is seen of templates that stand inside of sentences, by their names; others (boxes, notes, hints) are dropped.


def _first(values: list[str]) -> str:
    return values[0]


def _second(values: list[str]) -> str:
    return values[1] if len(values) > 1 else values[0]


def _last(values: list[str]) -> str:
    return values[-1]


def _spaced(values: list[str]) -> str:
    return " ".join(values[:3])


def _quantity(values: list[str]) -> str:
    """{{convert|5|km|mi}} is "5 km", {{convert|5|to|10|km}} "5 to 10 km"."""
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
    """An argument's value, or "" if it is an option: "abbr=on", but not "1=text" or "text=...", which are the text."""
    name, equals, value = argument.partition("=")
    name = name.strip().lower()
    if not equals or not re.fullmatch(r"[\w -]{1,30}", name):
        return argument.strip()
    return value.strip() if name.isdigit() or name in ("text", "quote") else ""


# Lines


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(level of the heading, or 0; text) of each line; marks of lists as people write them."""
    number = 0
    for line in text.split("\n"):
        line = line.strip()
        if level := _heading_level(line):
            yield level, line[level:-level].replace(_SOURCE, "").strip()
            continue
        item = _LIST.match(line)
        if item is None or item.end() == len(line):
            number = 0
            yield 0, "" if item else line.replace(_SOURCE, "")
            continue
        content = line[item.end() :]
        if item[1] == ";" and content:
            yield _BELOW_ALL, content.replace(_SOURCE, "")
            continue
        if item[1][-1] in "*#" and content.startswith(_REFERENCES):
            continue
        number = number + 1 if item[1] == "#" else 0
        mark = f"{number}. " if number else "- " if item[1][-1] in "*#" else ""
        yield 0, "  " * (len(item[1]) - 1 if mark else 0) + mark + content.replace(_SOURCE, "")


def _heading_level(line: str) -> int:
    inner = line.strip("=")
    level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6)
    return level if inner.strip() else 0


def _without_empty_sections(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    """Lines without the headings that nothing stands below: their sections held references or tables only."""
    waiting: list[tuple[int, str]] = []
    blank = True
    for level, line in lines:
        if level:
            while waiting and waiting[-1][0] >= level:
                waiting.pop()
            waiting.append((level, line))
        elif line:
            for _, heading in waiting:
                yield from ("", heading, "")
            if blank and not waiting:
                yield ""
            waiting, blank = [], False
            yield line
        else:
            blank = True


_REDIRECT = re.compile(r"\s*#\s*\w{1,30}\s*:?\s*\[\[[^\]\n]{1,300}\]\]", re.IGNORECASE)
_FILES, _CATEGORIES, _MEDIA = 6, 14, -2  # numbers of namespaces; their names are in the wiki's language


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
    def unseen(self) -> frozenset[str]:
        """Prefixes, in lower case, of links that show no text: files and categories."""
        local = (self.namespaces.get(number, "") for number in (_FILES, _CATEGORIES, _MEDIA))
        return frozenset({"file", "image", "category", "media", *(name.lower() for name in local)})

    def url(self, title: str) -> str:
        """The address of an article."""
        return f"{self.base.rpartition('/')[0]}/{quote(title.replace(' ', '_'), safe='/:,()')}" if self.base else ""

    def namespace_of(self, title: str) -> int:
        """By its title, for dumps (before 2012) that do not say it."""
        prefix = title.partition(":")[0]
        return next((number for number, name in self.namespaces.items() if name and name == prefix), 0)


def read_wiki(path: str, stream: BinaryIO, _: ReaderContext) -> Found:
    """The articles of an XML dump: the last revision of each, below its title.

    Redirects, and pages that are no articles (talk, users, templates, categories), are named and left out.
    """
    site = _Site()
    for page in _pages(stream, site):
        origin = f"{path}#{page.title}"
        if page.namespace != 0:
            kind = site.namespaces.get(page.namespace, "") or f"namespace {page.namespace}"
            yield Unreadable(origin, f"no article: {kind}")
        elif page.is_redirect or _REDIRECT.match(page.text):
            yield Unreadable(origin, "redirect")
        elif page.model != "wikitext":
            yield Unreadable(origin, f"no article: {page.model}")
        elif text := plain_text(page.text, site.unseen):
            yield Extracted(origin, f"{page.title}\n\n{text}", url=site.url(page.title), date=page.date)
        else:
            yield Unreadable(origin, "no text", page.text[:200])


def _pages(stream: BinaryIO, site: _Site) -> Iterator[_Page]:
    """Each page of a dump."""
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
