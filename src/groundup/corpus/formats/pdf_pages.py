"""The lines of PDF pages, by PDFium (its process is another one: see `run_isolated`)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

_PAGE_LIMIT = 200_000  # characters of one page: more are a drawing made of letters
_DOCUMENT_LIMIT = 20_000_000  # characters; no book has a fifth of that, and a page may be written once and shown often
_PAGES_LIMIT = 5000
_BROKEN_LIMIT = 20  # pages: what has more has lost its index, or never had one
_GAP = 1.0  # heights of a line between two words that stand in different columns of a table
_HYPHEN = 0x02  # PDFium's code for one that ends a line inside a word

_NOTHING: dict[str, Any] = {"lines": [], "characters": 0, "unmapped": 0, "images": 0, "height": 0.0}

Character = tuple[str, float, float, float, float]  # and its left, bottom, right and top edge in points


def read_pages(data: bytes) -> Iterator[dict[str, Any]]:
    """For each page its `lines` in the order in which they were written: [text, left, bottom, right, top, hyphenated].

    Coordinates are in points, as the text is read: of a page that lies on its side they are turned. Besides, `unmapped`
    of `characters` belong to fonts that do not tell what they mean, `images` are on the page, and `date` is that of the
    document. Where a page is broken, `damage` says how; an `error` ends it all.
    """
    import pypdfium2 as pdfium

    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        yield {"error": "password-protected" if "assword" in str(error) else "damaged", "detail": str(error)}
        return
    left, broken, date = _DOCUMENT_LIMIT, 0, _created(document)
    for index in range(len(document)):
        if broken == _BROKEN_LIMIT:
            return
        if index >= _PAGES_LIMIT or left <= 0:
            yield {**_NOTHING, "damage": f"more than {_PAGES_LIMIT:,} pages or {_DOCUMENT_LIMIT:,} characters"}
            return
        try:
            page = document[index]
            text = page.get_textpage()
            found = {**_read_page(page, text), "date": date}
            text.close()
            page.close()
        except pdfium.PdfiumError as error:  # other pages may be whole
            found = {**_NOTHING, "damage": str(error)}
            broken += 1
        left -= found["characters"]
        yield found


def _created(document: Any) -> str:
    """The day that "D:20240103120000+01'00'" says, as 2024-01-03."""
    day = re.match(r"D:(\d{4})(0[1-9]|1[0-2])([0-3]\d)", document.get_metadata_dict().get("CreationDate", ""))
    return "-".join(day.groups()) if day else ""


def _read_page(page: Any, text: Any) -> dict[str, Any]:
    import pypdfium2.raw as raw

    handle, box = text.raw, raw.FS_RECTF()
    unicode_of, box_of, is_unmapped = (
        raw.FPDFText_GetUnicode,
        raw.FPDFText_GetLooseCharBox,
        raw.FPDFText_HasUnicodeMapError,
    )
    count = min(max(raw.FPDFText_CountChars(handle), 0), _PAGE_LIMIT)
    lines: list[tuple[list[Character], bool, float]] = []
    line: list[Character] = []
    unmapped, high, angle, end = 0, 0, 0.0, 0.0
    for index in range(count):
        code = unicode_of(handle, index)
        if code in (0x0D, 0x0A, _HYPHEN):
            if line:
                lines.append((line, code == _HYPHEN, angle))
                line = []
            continue
        if not 0xA0 <= code <= 0xFF and is_unmapped(handle, index) == 1:  # numbers of glyphs are rarely as high
            unmapped += 1
            continue
        if 0xD800 <= code < 0xDC00:  # the first half of a character beyond 16 bits
            high = code
            continue
        if 0xDC00 <= code < 0xE000:
            code, high = (0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00) if high else 0xFFFD), 0
        if code < 0x20 or code > 0x10FFFF:
            continue
        box_of(handle, index, box)
        if not line:
            angle = raw.FPDFText_GetCharAngle(handle, index)
        elif code != 0x20 and box.left - end > _GAP * (box.top - box.bottom) > 0:
            line.append(("\t", end, box.bottom, box.left, box.top))
        if code != 0x20:  # PDFium's own blanks stand close to the next word
            end = box.right
        line.append((chr(code), box.left, box.bottom, box.right, box.top))
    if line:
        lines.append((line, False, angle))
    images = sum(1 for each in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=2)) if not lines else 0
    turned, height = _turned(lines, *page.get_mediabox())
    return {"lines": turned, "characters": count, "unmapped": unmapped, "images": images, "height": height}


def _turned(
    lines: list[tuple[list[Character], bool, float]], left: float, bottom: float, right: float, top: float
) -> tuple[list[list[Any]], float]:
    """Lines of the page's main direction, upright, and the height of the page then; what is written across goes."""
    quarters: Counter[int] = Counter()
    for characters, _, angle in lines:
        quarters[round(angle / (math.pi / 2)) % 4] += len(characters)
    main = max(quarters, key=lambda quarter: quarters[quarter], default=0)
    found = []
    for characters, hyphenated, angle in lines:
        words = "".join(character for character, *_ in _logical(characters)).strip()
        slant = abs(angle / (math.pi / 2) - main + 2) % 4 - 2  # in quarters of a turn from the main direction
        if words and abs(slant) < 0.1:
            boxes = [each for each in characters if not each[0].isspace()] or characters
            edges = (
                min(b[1] for b in boxes),
                min(b[2] for b in boxes),
                max(b[3] for b in boxes),
                max(b[4] for b in boxes),
            )
            found.append([words, *(round(edge, 1) for edge in _turn(edges, main)), hyphenated])
    page = _turn((left, bottom, right, top), main)
    return found, page[3] - page[1]


def _turn(edges: tuple[float, float, float, float], quarter: int) -> tuple[float, float, float, float]:
    left, bottom, right, top = edges
    for _ in range(quarter):
        left, bottom, right, top = bottom, -right, top, -left
    return left, bottom, right, top


def _logical(characters: list[Character]) -> list[Character]:
    """Right-to-left letters in the order in which they are read.

    PDFium turns them round. Not right then are the letters of one glyph (a whole word, in a bad font), which have the
    same edges, and words that the producer had stored from left to right as they look.
    """
    if not any(_is_right_to_left(character[0]) for character in characters):
        return characters
    result: list[Character] = []
    at = 0
    while at < len(characters):
        end = at + 1
        if _is_right_to_left(characters[at][0]) or characters[at][0] == " ":
            while end < len(characters) and (_is_right_to_left(characters[end][0]) or characters[end][0] == " "):
                end += 1
        run = characters[at:end]
        result += run[::-1] if len(run) > 1 and run[0][1] <= run[-1][1] else run
        at = end
    return result


def _is_right_to_left(character: str) -> bool:
    return "\u0590" <= character <= "\u08ff" or "\ufb1d" <= character <= "\ufdff" or "\ufe70" <= character <= "\ufefc"
