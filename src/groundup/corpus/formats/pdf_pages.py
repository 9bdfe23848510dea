"""Read the lines of PDF pages with PDFium, in a child process (see `groundup.corpus.isolated`)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

_MAX_PAGE_CHARACTERS = 200_000  # pages with more characters are drawings made of letters

# Maximum number of characters per document, five times as many as in a long book. A small PDF file may repeat a page
# many times.
_MAX_CHARACTERS = 20_000_000
_MAX_PAGES = 5000
_MAX_BROKEN_PAGES = 20  # a file with more damaged pages has probably lost its cross-reference table
_GAP = 1.0  # minimum gap between columns of a table, as a multiple of the line height
_HYPHEN = 0x02  # PDFium code of a hyphen at the end of a line

_NOTHING: dict[str, Any] = {"lines": [], "characters": 0, "unmapped": 0, "images": 0, "height": 0.0}

Character = tuple[str, float, float, float, float]  # a character and its left, bottom, right and top edges in points


def read_pages(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield a dict for each page of a PDF.

    The keys are:
    - `lines`: [text, left, bottom, right, top, hyphenated] for each line, in the order of the file. Coordinates are in
      points, after the page is rotated so that its text is upright.
    - `characters`: number of characters.
    - `unmapped`: number of characters in fonts that have no character map.
    - `images`: number of images; counted only on pages that have no text.
    - `height`: height of the rotated page in points.
    - `date`: creation date of the document.
    - `damage`: error message; present only if the page is damaged.

    If the document cannot be opened, a single dict with the keys `error` and `detail` is yielded.
    """
    import pypdfium2 as pdfium

    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        yield {"error": "password-protected" if "assword" in str(error) else "damaged", "detail": str(error)}
        return
    remaining, broken, date = _MAX_CHARACTERS, 0, _created(document)
    for index in range(len(document)):
        if broken == _MAX_BROKEN_PAGES:
            return
        if index >= _MAX_PAGES or remaining <= 0:
            yield {**_NOTHING, "damage": f"more than {_MAX_PAGES:,} pages or {_MAX_CHARACTERS:,} characters"}
            return
        try:
            page = document[index]
            text = page.get_textpage()
            found = {**_read_page(page, text), "date": date}
            text.close()
            page.close()
        except pdfium.PdfiumError as error:  # reading continues, because other pages may be readable
            found = {**_NOTHING, "damage": str(error)}
            broken += 1
        remaining -= found["characters"]
        yield found


def _created(document: Any) -> str:
    """Return the creation date in ISO 8601.

    For example, the PDF date "D:20240103120000+01'00'" becomes "2024-01-03".
    """
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
    count = min(max(raw.FPDFText_CountChars(handle), 0), _MAX_PAGE_CHARACTERS)
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
        # If a font has no character map, PDFium returns a glyph number instead of a character code. Glyph numbers are
        # rarely from 0xA0 to 0xFF.
        if not 0xA0 <= code <= 0xFF and is_unmapped(handle, index) == 1:
            unmapped += 1
            continue
        if 0xD800 <= code < 0xDC00:  # high surrogate
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
        if code != 0x20:  # if PDFium inserts a space, the space is next to the following word
            end = box.right
        line.append((chr(code), box.left, box.bottom, box.right, box.top))
    if line:
        lines.append((line, False, angle))
    images = sum(1 for each in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=2)) if not lines else 0
    rotated, height = _rotate_lines(lines, *page.get_mediabox())
    return {"lines": rotated, "characters": count, "unmapped": unmapped, "images": images, "height": height}


def _rotate_lines(
    lines: list[tuple[list[Character], bool, float]], left: float, bottom: float, right: float, top: float
) -> tuple[list[list[Any]], float]:
    """Rotate a page so that its main text direction is upright.

    Return the lines in the main text direction, and the height of the rotated page.
    """
    quarters: Counter[int] = Counter()
    for characters, _, angle in lines:
        quarters[round(angle / (math.pi / 2)) % 4] += len(characters)
    main = max(quarters, key=lambda quarter: quarters[quarter], default=0)
    found = []
    for characters, hyphenated, angle in lines:
        words = "".join(character for character, *_ in _logical(characters)).strip()
        slant = abs(angle / (math.pi / 2) - main + 2) % 4 - 2  # angle to the main text direction in quarter turns
        if words and abs(slant) < 0.1:
            boxes = [each for each in characters if not each[0].isspace()] or characters
            edges = (
                min(b[1] for b in boxes),
                min(b[2] for b in boxes),
                max(b[3] for b in boxes),
                max(b[4] for b in boxes),
            )
            found.append([words, *(round(edge, 1) for edge in _rotate(edges, main)), hyphenated])
    page = _rotate((left, bottom, right, top), main)
    return found, page[3] - page[1]


def _rotate(edges: tuple[float, float, float, float], quarter: int) -> tuple[float, float, float, float]:
    left, bottom, right, top = edges
    for _ in range(quarter):
        left, bottom, right, top = bottom, -right, top, -left
    return left, bottom, right, top


def _logical(characters: list[Character]) -> list[Character]:
    """Return the characters of a line in logical order, which is the order of reading.

    PDFium reverses the order of right-to-left text. The result is wrong for the letters of a ligature, which have equal
    edges, and for words that the PDF file stores in visual order. Characters in the wrong order are reversed again.
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
