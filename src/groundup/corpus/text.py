"""Clean texts, and split long texts into documents of bounded size."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import ftfy
from ftfy.badness import is_bad

# C0 and C1 controls except tab and newline, byte order marks inside a text, and non-characters.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_BLANKS = " \t\u00a0"
_BLANK_LINES = re.compile(r"\n{3,}")
# Inline images in base64, which some editors and document exports write.
_DATA_URI = re.compile(
    r"(?:!\[[^\[\]\n]{0,1000}\]\(\s?<?|^\[[^\[\]\n]{1,200}\]:[ \t]*<?)?"
    r"data:[\w.+-]{1,100}/[\w.+-]{1,100}(?:;[\w.=-]{1,100}){0,5};base64,[A-Za-z0-9+/]{64,}={0,2}"
    r"(?:>?(?:[ ]\"[^\"\n]{0,1000}\")?\)|>)?",
    re.MULTILINE,
)
_ENTITY = re.compile("&(?:#[0-9]+|#x[0-9a-fA-F]+|[a-zA-Z]+[0-9]*);")
# Characters that do not occur in mojibake on their own. Most lines have no others, and checking a line for mojibake
# takes longer than the rest of the cleaning.
_HARMLESS = frozenset(map(chr, range(128))) | frozenset("’‘“”–—…•·©®°→«»\u00a0")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, fix_character_width=False, fix_line_breaks=False, explain=False)

# Quotes as in TeX and the Penn Treebank: ``this''. Inline code in Markdown does not end in ''.
_TEX_QUOTES = re.compile(r"(?<!`)``(?!`)([^`\n]*?)''")

# Since about 2001 "*** START OF THE PROJECT GUTENBERG EBOOK X ***"; before that, the end of the "small print".
_GUTENBERG_START = re.compile(
    r"^[ \t]*\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG.*?\*\*\*[^\n]*\n"
    r"|^[ \t]*\*END[ *]*THE SMALL PRINT![^\n]*(?:\n[^\n]*)?\*END\*[^\n]*\n",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_GUTENBERG_END = re.compile(
    r"^[ \t]*(?:\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|\**End of (?:the |this )?(?:is COPYRIGHTED )?Project Gutenberg)",
    re.MULTILINE | re.IGNORECASE,
)
_GUTENBERG_CREDITS = re.compile(
    r"\s*(?:Produced by|E-?text prepared by|Transcribed (?:by|from)|Prepared by|Credits:|HTML version by"
    r"|This e-?(?:text|book) was (?:produced|prepared)|Scanned (?:and proofed )?by)[^\n]*(?:\n[^\n]+)*",
    re.IGNORECASE,
)


def clean_text(text: str) -> str:
    r"""Repair and normalize one text.

    - Repairs mojibake, HTML entities, terminal escapes and lone surrogates with ftfy. Texts without signs of these
      skip ftfy, which is slow.
    - Converts line ends to "\n", ``TeX quotes'' to straight quotes, and the text to NFC.
    - Removes control characters, base64 images, trailing spaces, and repeated blank lines.
    - Removes the header and license of Project Gutenberg books.

    Typographic quotes and full-width characters are kept.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    if ";base64," in text:
        text = _DATA_URI.sub("", text)
    if _needs_repair(text):
        text = ftfy.fix_text(text, _REPAIR)
    text = _CONTROLS.sub("", text.replace("\f", "\n\n").replace("\v", "\n"))
    text = _TEX_QUOTES.sub(r'"\1"', _without_gutenberg_frame(text))
    text = "\n".join(
        line.rstrip(_BLANKS) for line in text.split("\n")
    )  # a regex takes quadratic time on long runs of spaces
    text = _BLANK_LINES.sub("\n\n", text).strip("\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _needs_repair(text: str) -> bool:
    # Fast checks first. They suffice for most texts, and ftfy is slower than the rest of the cleaning.
    if ("&" in text and _ENTITY.search(text)) or "\x1b[" in text:
        return True
    if text.isascii():
        return False
    suspicious = [line for line in text.split("\n") if not _HARMLESS.issuperset(line)]
    return any(is_bad(line) or _SURROGATE.search(line) for line in suspicious)


def _without_gutenberg_frame(text: str) -> str:
    has_frame = "PROJECT GUTENBERG" in text or "SMALL PRINT!" in text or "Project Gutenberg" in text
    start = _GUTENBERG_START.search(text) if has_frame else None
    if start is None:
        return text
    if (end := _GUTENBERG_END.search(text, 0, start.start())) is not None:  # the small print follows the book
        return text[: end.start()]
    end = _GUTENBERG_END.search(text, start.end())
    credits = _GUTENBERG_CREDITS.match(text, start.end())
    return text[credits.end() if credits else start.end() : end.start() if end else len(text)]


_HEADING = re.compile(
    r"(?:#{1,6} |(?:CHAPTER|BOOK|PART|ACT|SCENE|CANTO|SECTION|PROLOGUE|EPILOGUE)\b"
    r"|(?:Chapter|Book|Part|Act|Scene|Canto)\b"
    r"|[IVXLC]+\.? *$)",
    re.MULTILINE,
)


def split_text(text: str, max_bytes: int) -> Iterator[str]:
    """Split a text into pieces of about equal size, at most `max_bytes` UTF-8 bytes each.

    A piece starts at a chapter heading if one is near, otherwise at a paragraph, line or word. Only white space at
    the boundaries is removed. Without splitting, one hash could assign a whole book to the validation set.

    Args:
        text: The text.
        max_bytes: Maximum size of a piece in UTF-8 bytes.

    Yields:
        The pieces, in order.
    """
    total = len(text.encode())
    if total <= max_bytes:
        yield text
        return
    target = total / -(-total // max_bytes)
    piece: list[str] = []
    size = 0
    for unit in _units(text, max_bytes):
        unit_bytes = len(unit.encode())
        at_heading = size > target * 0.6 and _HEADING.match(unit.lstrip()) is not None
        if piece and (size + unit_bytes > max_bytes or size + unit_bytes / 2 > target or at_heading):
            yield "".join(piece).strip("\n")
            piece, size = [], 0
        piece.append(unit)
        size += unit_bytes
    if last := "".join(piece).strip("\n"):
        yield last


_CUTS = (
    re.compile(r"(?<=\n\n)"),
    re.compile(r"(?<=\n)"),
    re.compile(r"(?<=[.!?。！？] )"),
    re.compile(r"(?<=\s)"),
)


def _units(text: str, max_bytes: int, level: int = 0) -> Iterator[str]:
    """Yield consecutive units that are not split further, of at most `max_bytes` bytes."""
    if level == len(_CUTS):  # one word longer than a document
        step = max(1, max_bytes // 4)  # characters of up to 4 UTF-8 bytes
        yield from (text[at : at + step] for at in range(0, len(text), step))
        return
    for part in _CUTS[level].split(text):
        if len(part.encode()) <= max_bytes:
            yield part
        else:
            yield from _units(part, max_bytes, level + 1)
