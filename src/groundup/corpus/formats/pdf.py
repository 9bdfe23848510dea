"""PDF: the text of its pages as paragraphs, in the order in which they are read."""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.isolated import CrashError, run_isolated
from groundup.corpus.streams import read_whole

_EDGE_LINES = 3  # at the top and the bottom of a page that may be running heads
_REPEATS = 3  # pages on which one stands, at least
_NEAR = 2  # pages between two of them, at most: left and right ones differ
_MARGIN = 0.2  # of a page's height in which a number alone, at some distance from the text, is its page's
_COLUMNS = 0.15  # of all lines begin in the right half of the page, where there are columns
_ORDERED_BLOCKS = 60  # on one page, at most: putting them in order takes the cube of it
_PAGE_NUMBER = re.compile(
    r"[\W_]*(?:(?:page|seite|p\.|pagina|página|стр\.?) ?)?(?:\d{1,4}|[ivxlcdm]{1,8})"
    r"(?: ?(?:/|of|von|sur|de|di|из|-|–) ?\d{1,4})?[\W_]*",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"\d+|\b[ivxlcdm]+\b")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_ITEM = re.compile(r"(?:[•‣▪◦●○■□–—*·]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s")
_LAST_WORD = re.compile(r"([^\W\d_]+(?:-[^\W\d_]+)*)$")
_FIRST_WORD = re.compile(r"[^\W\d_]+")
_ENDS = re.compile(r"[.!?:;…。！？][\"'”’»)\]]*$")
_LEADERS = re.compile(r"\s*(?:\s?[.·…]){4,}\s*")
_GAP = re.compile(r" *\t[ \t]*")
_NO_SPACES = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]")  # Chinese and Japanese are written without


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text and its edges in points, y upwards; `hyphenated`: its last word goes on in the next line."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    hyphenated: bool = False

    @property
    def height(self) -> float:
        """Of its font."""
        return max(self.top - self.bottom, 0.1)

    @property
    def middle(self) -> float:
        """Of its height, as y."""
        return (self.top + self.bottom) / 2


@dataclass(frozen=True, slots=True)
class PdfPage:
    """The lines of a page in the order in which they were written, and its height in points."""

    lines: tuple[TextLine, ...]
    height: float

    @classmethod
    def of(cls, lines: Sequence[Sequence[Any]], height: float) -> PdfPage:
        """From what `pdf_pages.read_pages` gives; parts of one line that were written one by one become one."""
        found: list[TextLine] = []
        for line in (TextLine(*each) for each in lines):
            if found and not found[-1].hyphenated and _same_line(found[-1], line):
                last = found.pop()
                line = TextLine(
                    f"{last.text} {line.text}",
                    last.left,
                    min(last.bottom, line.bottom),
                    line.right,
                    max(last.top, line.top),
                    line.hyphenated,
                )
            found.append(line)
        return cls(tuple(found), height)


def _same_line(first: TextLine, second: TextLine) -> bool:
    overlap = min(first.top, second.top) - max(first.bottom, second.bottom)
    near = -0.5 * first.height <= second.left - first.right < 3 * first.height
    return near and overlap > 0.6 * min(first.height, second.height)


def layout(pages: Sequence[PdfPage]) -> str:
    """The text of a document: paragraphs with a blank line between them."""
    pages = _without_running_heads(pages)
    pitch, margin = _usual_pitch(pages), _right_margin(pages)
    words = Counter(word.lower() for page in pages for line in page.lines for word in _WORD.findall(line.text))
    paragraphs: list[str] = []
    last: TextLine | None = None  # of a paragraph that may go on in the next column or on the next page
    for page in pages:
        for block in _ordered(_blocks(page.lines)):
            for number, paragraph in enumerate(_paragraphs(block, pitch, margin, words)):
                goes_on = number == 0 and last is not None and _goes_on(last, block[0])
                if goes_on and last is not None:
                    paragraphs[-1] = _joined(paragraphs[-1], last.hyphenated, paragraph, words)
                else:
                    paragraphs.append(paragraph)
            last = block[-1]
    text = "\n\n".join(paragraphs)
    return _GAP.sub("\t", _LEADERS.sub(" … ", text)).strip()


def _goes_on(last: TextLine, first: TextLine) -> bool:
    alike = 0.8 < last.height / first.height < 1.25
    begins_inside = first.text[:1].islower() or last.hyphenated
    return alike and begins_inside and not _ENDS.search(last.text) and not _ITEM.match(first.text)


# Running heads


def _without_running_heads(pages: Sequence[PdfPage]) -> list[PdfPage]:
    """Pages without the lines at their top and bottom that stand, but for numbers, on pages nearby as well."""
    dropped: list[set[TextLine]] = [set() for _ in pages]
    for at_top in (True, False):
        edges = [_edge(page, at_top) for page in pages]
        places: dict[tuple[str, int], list[int]] = {}
        for number, lines in enumerate(edges):
            for line in lines:
                places.setdefault(_place(line), []).append(number)
        for number, (page, lines) in enumerate(zip(pages, edges, strict=True)):
            for line in lines:  # from outside; what is inside of the first line that stays, stays
                near = places[_place(line)]
                repeated = len(near) >= _REPEATS and any(0 < abs(other - number) <= _NEAR for other in near)
                if not repeated and not _is_page_number(line, page, at_top):
                    break
                dropped[number].add(line)
    kept = [
        PdfPage(tuple(line for line in page.lines if line not in gone), page.height)
        for page, gone in zip(pages, dropped, strict=True)
    ]
    emptied = sum(not page.lines for page in kept) - sum(not page.lines for page in pages)
    return kept if emptied * 2 < len(pages) else list(pages)  # a few words on every page: then these are the text


def _edge(page: PdfPage, at_top: bool) -> list[TextLine]:
    return sorted(page.lines, key=lambda line: line.middle, reverse=at_top)[:_EDGE_LINES]


def _place(line: TextLine) -> tuple[str, int]:
    """What a running head has in common on all its pages; a line of figures alone is not one."""
    return _NUMBERS.sub("#", line.text), round(line.middle / 8)


def _is_page_number(line: TextLine, page: PdfPage, at_top: bool) -> bool:
    if len(page.lines) < 2 or not _PAGE_NUMBER.fullmatch(line.text):
        return False
    from_edge = page.height - line.middle if at_top else line.middle
    distance = min(abs(line.middle - other.middle) for other in page.lines if other is not line)
    return from_edge < _MARGIN * page.height and distance > 1.5 * line.height


# Blocks: lines below each other in one column


def _blocks(lines: Sequence[TextLine]) -> list[list[TextLine]]:
    blocks: list[list[TextLine]] = []
    for line in lines:
        if blocks and _is_below(blocks[-1][-1], line, blocks[-1]):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return blocks


def _is_below(last: TextLine, line: TextLine, block: Sequence[TextLine]) -> bool:
    step = last.middle - line.middle
    left, right = min(each.left for each in block[-8:]), max(each.right for each in block[-8:])
    overlaps = min(right, line.right) - max(left, line.left) > 0
    alike = 0.75 < last.height / line.height < 1.33
    return overlaps and alike and 0 < step < 2.2 * max(last.height, line.height)


def _ordered(blocks: list[list[TextLine]]) -> list[list[TextLine]]:
    """Blocks as they were written, or, where that goes up inside of a column, as they are read (Breuel, 2003).

    T. M. Breuel, "High Performance Document Layout Analysis": a block is read before another if it is above it in the
    same column, or in a column to its left with nothing between that spans both.
    """
    boxes = [_box(block) for block in blocks]
    upwards = any(_spans(a, b) and a[1] < b[1] and a[3] < b[3] - 1 for i, b in enumerate(boxes) for a in boxes[:i])
    if not upwards or len(blocks) > _ORDERED_BLOCKS:
        return blocks
    left = list(range(len(blocks)))
    earlier = [{i for i in left if i != j and _before(boxes, i, j)} for j in left]
    order: list[int] = []
    while left:
        first = next((index for index in left if earlier[index] <= set(order)), left[0])
        left.remove(first)
        order.append(first)
    return [blocks[index] for index in order]


_Box = tuple[float, float, float, float]  # left, bottom, right, top


def _box(block: Sequence[TextLine]) -> _Box:
    return (
        min(line.left for line in block),
        min(line.bottom for line in block),
        max(line.right for line in block),
        max(line.top for line in block),
    )


def _spans(a: _Box, b: _Box) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0])


def _before(boxes: Sequence[_Box], first: int, second: int) -> bool:
    a, b = boxes[first], boxes[second]
    if _spans(a, b):
        return a[1] + a[3] > b[1] + b[3]
    if a[2] > b[0]:
        return False
    low, high = sorted(((a[1] + a[3]) / 2, (b[1] + b[3]) / 2))
    return not any(_spans(c, a) and _spans(c, b) and low < (c[1] + c[3]) / 2 < high for c in boxes)


# Paragraphs


def _usual_pitch(pages: Sequence[PdfPage]) -> float:
    """From one line to the next inside of a paragraph, in heights of a line."""
    steps = [
        (first.middle - second.middle) / first.height
        for page in pages
        for first, second in itertools.pairwise(page.lines)
        if 0 < first.middle - second.middle < 2.2 * first.height
    ]
    return statistics.median_low(steps) if steps else 1.2


def _right_margin(pages: Sequence[PdfPage]) -> float:
    """Where the lines of a document of one column end, at most; 0 if it has several, each with an end of its own."""
    lines = [line for page in pages for line in page.lines]
    if len(lines) < 3:
        return 0.0
    left = statistics.quantiles((line.left for line in lines), n=20)[0]
    right = statistics.quantiles((line.right for line in lines), n=20)[-1]
    beside = sum(line.left > (left + right) / 2 for line in lines)
    return right if beside < _COLUMNS * len(lines) else 0.0


def _paragraphs(block: Sequence[TextLine], pitch: float, margin: float, words: Counter[str]) -> Iterator[str]:
    left, right = min(line.left for line in block), max(margin, *(line.right for line in block))
    text = block[0].text
    for last, line in itertools.pairwise(block):
        step = (last.middle - line.middle) / last.height
        indented = line.left > left + 0.6 * line.height and last.left < left + 0.3 * line.height
        if "\t" in last.text and "\t" in line.text and not last.hyphenated:  # rows of a table
            text = f"{text}\n{line.text}"
        elif step > pitch + 0.25 or _ITEM.match(line.text) or (indented and not _ITEM.match(last.text)):
            yield text
            text = line.text
        elif _is_broken_on_purpose(last, line, left, right):
            if _ENDS.search(last.text):
                yield text
                text = line.text
            else:
                text = f"{text}\n{line.text}"
        else:
            text = _joined(text, last.hyphenated, line.text, words)
    yield text


def _is_broken_on_purpose(last: TextLine, line: TextLine, left: float, right: float) -> bool:
    """Whether the first word of a line had had room in the one before (of text that runs from right to left, too)."""
    if last.hyphenated:
        return False
    word = len(line.text.split(maxsplit=1)[0]) + 2.5  # a blank and some tolerance
    clear = _ENDS.search(last.text) is not None or not line.text[0].islower()
    room = max(right - last.right, last.left - left if last.right >= right - 1 and _is_right_to_left(last.text) else 0)
    return room > word * (line.right - line.left) / max(len(line.text), 1) + (0 if clear else 0.15 * (right - left))


def _is_right_to_left(text: str) -> bool:
    return sum("\u0590" <= character <= "\u08ff" for character in text) * 2 > len(text)


def _joined(text: str, hyphenated: bool, more: str, words: Counter[str]) -> str:
    """Two lines of one paragraph; a word that was divided between them becomes one again."""
    more = more.replace("\t", " ")  # wide blanks, where the line was stretched to the margin
    first = _FIRST_WORD.match(more)
    if text.endswith(("-", "\u2010", "\u00ad")) and not hyphenated:
        hyphenated = first is not None and more[0].islower() and text[-2:-1].isalpha()
        text = text[:-1] if hyphenated else text
    if hyphenated:
        before = _LAST_WORD.search(text)
        keeps = before is not None and first is not None and _keeps_hyphen(before[0], first[0], words)
        return f"{text}-{more}" if keeps else text + more
    if _NO_SPACES.match(text[-1:]) and _NO_SPACES.match(more):
        return text + more
    return f"{text} {more}"


def _keeps_hyphen(before: str, after: str, words: Counter[str]) -> bool:
    """Whether a word divided at its hyphen is a compound, as the rest of the document writes it.

    If it does not, what has a hyphen already is one ("state-of-the-|art"), but not if its last part is no word.
    """
    whole, compound = words[f"{before}{after}".lower()], words[f"{before}-{after}".lower()]
    if whole != compound:
        return compound > whole
    parts = before.lower().split("-")
    return (len(parts) > 1 and words[parts[-1]] > 0) or after[0].isupper()


_READABLE = 0.5  # of a document's characters, at least, must be in fonts that tell what they mean


def read_pdf(path: str, stream: BinaryIO, _: ReaderContext) -> Found:
    """A PDF as one text; what cannot be read says why: a password, scanned pages, fonts without a character map.

    A damaged page leaves the others; where the reader itself crashes, the pages before that are kept.
    """
    pages: list[PdfPage] = []
    characters = unmapped = images = 0
    failed: list[Unreadable] = []
    date = ""
    try:
        for number, page in enumerate(
            run_isolated("groundup.corpus.formats.pdf_pages:read_pages", read_whole(stream)), 1
        ):
            if "error" in page:
                yield Unreadable(path, page["error"], page["detail"])
                return
            if "damage" in page:
                failed.append(Unreadable(f"{path}#page={number}", "damaged", page["damage"]))
            pages.append(PdfPage.of(page["lines"], page["height"]))
            characters += page["characters"]
            unmapped += page["unmapped"]
            images += page["images"]
            date = page.get("date", date)
    except CrashError as error:
        failed.append(Unreadable(f"{path}#page={len(pages) + 1}", "damaged", f"the reader was stopped: {error}"))
    if unmapped > _READABLE * characters:
        yield Unreadable(path, "fonts without a character map", f"{unmapped} of {characters} characters")
    elif text := layout(pages):
        yield Extracted(path, text, date=date)
    elif not failed:
        scanned = "no text layer: scanned pages"
        yield Unreadable(path, scanned if images else "no text", f"{len(pages)} pages, {images} images")
    yield from failed
