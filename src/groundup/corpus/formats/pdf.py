"""Extract the text of PDF files as paragraphs in reading order."""

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

_EDGE_LINES = 3  # number of lines at the top and bottom of a page that may be running heads
_MIN_REPEATS = 3  # minimum number of pages on which a running head repeats

# Maximum distance in pages between repeats of a running head, because left and right pages may differ.
_MAX_PAGE_DISTANCE = 2
_MARGIN = 0.2  # fraction of the page height at the top and bottom in which a separate number is a page number
_MIN_RIGHT_LINES = 0.15  # minimum fraction of lines that start in the right half of the page in a document with columns
_MAX_ORDERED_BLOCKS = 60  # maximum number of blocks to sort on a page, because sorting takes cubic time
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
_NO_SPACES = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]")  # Chinese and Japanese


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text and its position. Coordinates are in points, and y increases upwards.

    Attributes:
        text: The text.
        left: Left edge.
        bottom: Bottom edge.
        right: Right edge.
        top: Top edge.
        hyphenated: Whether the last word continues in the next line.
    """

    text: str
    left: float
    bottom: float
    right: float
    top: float
    hyphenated: bool = False

    @property
    def height(self) -> float:
        """Height of the line."""
        return max(self.top - self.bottom, 0.1)

    @property
    def middle(self) -> float:
        """The y coordinate of the center of the line."""
        return (self.top + self.bottom) / 2


@dataclass(frozen=True, slots=True)
class PdfPage:
    """A page: its lines in the order of the file, and its height in points."""

    lines: tuple[TextLine, ...]
    height: float

    @classmethod
    def of(cls, lines: Sequence[Sequence[Any]], height: float) -> PdfPage:
        """Create a page from the output of `pdf_pages.read_pages`, and join the parts of each line."""
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
    adjacent = -0.5 * first.height <= second.left - first.right < 3 * first.height
    return adjacent and overlap > 0.6 * min(first.height, second.height)


_PAGE_BREAK = "\ufdd0"  # a Unicode noncharacter, which marks the start of a page during layout


def layout(pages: Sequence[PdfPage]) -> tuple[str, tuple[int, ...]]:
    """Return the text of a document as paragraphs separated by blank lines, and the offset at which each page starts.

    A page without text starts at the same offset as the next page.
    """
    pages = _without_running_heads(pages)
    pitch, margin = _median_pitch(pages), _right_margin(pages)
    words = Counter(word.lower() for page in pages for line in page.lines for word in _WORD.findall(line.text))
    paragraphs: list[str] = []
    # Last line of the previous block. The paragraph of this line may continue in the next column or on the next page.
    last: TextLine | None = None
    breaks = ""
    for page in pages:
        breaks += _PAGE_BREAK
        for block in _ordered(_blocks(page.lines)):
            for number, paragraph in enumerate(_paragraphs(block, pitch, margin, words)):
                paragraph = paragraph.replace(_PAGE_BREAK, "")
                continues = number == 0 and last is not None and _continues(last, block[0])
                if continues and last is not None:
                    joined = _joined(paragraphs[-1], last.hyphenated, paragraph, words)
                    at = len(joined) - len(paragraph)
                    paragraphs[-1] = f"{joined[:at]}{breaks}{joined[at:]}"
                else:
                    paragraphs.append(breaks + paragraph)
                breaks = ""
            last = block[-1]
    text = _GAP.sub("\t", _LEADERS.sub(" … ", "\n\n".join(paragraphs) + breaks))
    return _without_breaks(text)


def _without_breaks(text: str) -> tuple[str, tuple[int, ...]]:
    """Remove the page breaks and surrounding white space from a text. Return the text and the offsets of the pages."""
    first, *parts = text.split(_PAGE_BREAK)
    starts = list(itertools.accumulate(map(len, parts[:-1]), initial=len(first)))
    whole = first + "".join(parts)
    indent, stripped = len(whole) - len(whole.lstrip()), whole.strip()
    return stripped, tuple(min(max(start - indent, 0), len(stripped)) for start in starts)


def _continues(last: TextLine, first: TextLine) -> bool:
    same_height = 0.8 < last.height / first.height < 1.25
    starts_inside = first.text[:1].islower() or last.hyphenated
    return same_height and starts_inside and not _ENDS.search(last.text) and not _ITEM.match(first.text)


# Running heads


def _without_running_heads(pages: Sequence[PdfPage]) -> list[PdfPage]:
    """Remove page numbers and running heads, which are lines at the top or bottom that repeat on nearby pages."""
    dropped: list[set[TextLine]] = [set() for _ in pages]
    for at_top in (True, False):
        edges = [_edge(page, at_top) for page in pages]
        places: dict[tuple[str, int], list[int]] = {}
        for number, lines in enumerate(edges):
            for line in lines:
                places.setdefault(_place(line), []).append(number)
        for number, (page, lines) in enumerate(zip(pages, edges, strict=True)):
            for line in lines:  # the loop goes from the edge of the page inwards and ends at the first line to keep
                occurrences = places[_place(line)]
                repeated = len(occurrences) >= _MIN_REPEATS and any(
                    0 < abs(other - number) <= _MAX_PAGE_DISTANCE for other in occurrences
                )
                if not repeated and not _is_page_number(line, page, at_top):
                    break
                dropped[number].add(line)
    kept = [
        PdfPage(tuple(line for line in page.lines if line not in gone), page.height)
        for page, gone in zip(pages, dropped, strict=True)
    ]
    emptied = sum(not page.lines for page in kept) - sum(not page.lines for page in pages)
    # If removing repeated lines would empty most pages, the repeated lines are the text.
    return kept if emptied * 2 < len(pages) else list(pages)


def _edge(page: PdfPage, at_top: bool) -> list[TextLine]:
    return sorted(page.lines, key=lambda line: line.middle, reverse=at_top)[:_EDGE_LINES]


def _place(line: TextLine) -> tuple[str, int]:
    """Return a key that identifies a running head. The same running head has the same key on all pages."""
    return _NUMBERS.sub("#", line.text), round(line.middle / 8)


def _is_page_number(line: TextLine, page: PdfPage, at_top: bool) -> bool:
    if len(page.lines) < 2 or not _PAGE_NUMBER.fullmatch(line.text):
        return False
    from_edge = page.height - line.middle if at_top else line.middle
    distance = min(abs(line.middle - other.middle) for other in page.lines if other is not line)
    return from_edge < _MARGIN * page.height and distance > 1.5 * line.height


# Blocks: consecutive lines of one column


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
    same_height = 0.75 < last.height / line.height < 1.33
    return overlaps and same_height and 0 < step < 2.2 * max(last.height, line.height)


def _ordered(blocks: list[list[TextLine]]) -> list[list[TextLine]]:
    """Return the blocks of a page in reading order.

    The order of the blocks in the file is kept unless this order moves upwards within a column. If the order moves
    upwards, the blocks are sorted as described by Breuel in "High Performance Document Layout Analysis" (2003). A block
    A precedes a block B if A is above B in the same column. Block A also precedes block B if A is in a column to the
    left of B and no block between them spans both columns.
    """
    boxes = [_box(block) for block in blocks]
    upwards = any(_spans(a, b) and a[1] < b[1] and a[3] < b[3] - 1 for i, b in enumerate(boxes) for a in boxes[:i])
    if not upwards or len(blocks) > _MAX_ORDERED_BLOCKS:
        return blocks
    remaining = list(range(len(blocks)))
    earlier = [{i for i in remaining if i != j and _before(boxes, i, j)} for j in remaining]
    order: list[int] = []
    while remaining:
        first = next((index for index in remaining if earlier[index] <= set(order)), remaining[0])
        remaining.remove(first)
        order.append(first)
    return [blocks[index] for index in order]


_Box = tuple[float, float, float, float]  # the left, bottom, right and top edges of a block


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


def _median_pitch(pages: Sequence[PdfPage]) -> float:
    """Return the median distance between consecutive lines as a multiple of the line height."""
    steps = [
        (first.middle - second.middle) / first.height
        for page in pages
        for first, second in itertools.pairwise(page.lines)
        if 0 < first.middle - second.middle < 2.2 * first.height
    ]
    return statistics.median_low(steps) if steps else 1.2


def _right_margin(pages: Sequence[PdfPage]) -> float:
    """Return the x coordinate of the right margin, or 0 if the document has several columns."""
    lines = [line for page in pages for line in page.lines]
    if len(lines) < 3:
        return 0.0
    left = statistics.quantiles((line.left for line in lines), n=20)[0]
    right = statistics.quantiles((line.right for line in lines), n=20)[-1]
    right_lines = sum(line.left > (left + right) / 2 for line in lines)
    return right if right_lines < _MIN_RIGHT_LINES * len(lines) else 0.0


def _paragraphs(block: Sequence[TextLine], pitch: float, margin: float, words: Counter[str]) -> Iterator[str]:
    left, right = min(line.left for line in block), max(margin, *(line.right for line in block))
    text = block[0].text
    for last, line in itertools.pairwise(block):
        step = (last.middle - line.middle) / last.height
        indented = line.left > left + 0.6 * line.height and last.left < left + 0.3 * line.height
        if "\t" in last.text and "\t" in line.text and not last.hyphenated:  # both lines are rows of a table
            text = f"{text}\n{line.text}"
        elif step > pitch + 0.25 or _ITEM.match(line.text) or (indented and not _ITEM.match(last.text)):
            yield text
            text = line.text
        elif _is_deliberate_break(last, line, left, right):
            if _ENDS.search(last.text):
                yield text
                text = line.text
            else:
                text = f"{text}\n{line.text}"
        else:
            text = _joined(text, last.hyphenated, line.text, words)
    yield text


def _is_deliberate_break(last: TextLine, line: TextLine, left: float, right: float) -> bool:
    """Return whether a line break is deliberate, because the first word of `line` would fit on the previous line."""
    if last.hyphenated:
        return False
    # Width of the first word in characters, plus a space and some tolerance.
    word = len(line.text.split(maxsplit=1)[0]) + 2.5
    plausible = _ENDS.search(last.text) is not None or not line.text[0].islower()
    free = max(right - last.right, last.left - left if last.right >= right - 1 and _is_right_to_left(last.text) else 0)
    return free > word * (line.right - line.left) / max(len(line.text), 1) + (0 if plausible else 0.15 * (right - left))


def _is_right_to_left(text: str) -> bool:
    return sum("\u0590" <= character <= "\u08ff" for character in text) * 2 > len(text)


def _joined(text: str, hyphenated: bool, more: str, words: Counter[str]) -> str:
    """Join two lines of a paragraph, and the parts of a hyphenated word."""
    more = more.replace("\t", " ")  # tabs are the wide spaces of a justified line
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
    """Return whether a word that is broken at a hyphen keeps the hyphen.

    The word keeps the hyphen if the document more often contains the word with the hyphen than without the hyphen. If
    both forms are equally frequent, the word keeps the hyphen if a capital letter follows. A word with another hyphen
    also keeps the hyphen if the document contains the part before the break as a word. For example, "state-of-the-|art"
    keeps the hyphen if the document contains "the".
    """
    whole, compound = words[f"{before}{after}".lower()], words[f"{before}-{after}".lower()]
    if whole != compound:
        return compound > whole
    parts = before.lower().split("-")
    return (len(parts) > 1 and words[parts[-1]] > 0) or after[0].isupper()


_MAX_UNMAPPED = 0.5  # maximum fraction of characters in fonts that have no character map


def read_pdf(path: str, stream: BinaryIO, _: ReaderContext) -> Found:
    """Yield the text of a PDF, or an `Unreadable` with the reason why it has no text.

    A PDF has no text if it is password-protected, if its pages are scanned images, or if its fonts have no character
    map. Damaged pages are skipped. If the PDF reader crashes, the pages before the crash are kept.
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
    if unmapped > _MAX_UNMAPPED * characters:
        yield Unreadable(path, "fonts without a character map", f"{unmapped} of {characters} characters")
    elif (found := layout(pages))[0]:
        yield Extracted(path, found[0], date=date, pages=found[1])
    elif not failed:
        scanned = "no text layer: scanned pages"
        yield Unreadable(path, scanned if images else "no text", f"{len(pages)} pages, {images} images")
    yield from failed
