"""Cleaning of texts, and splitting of long texts into documents of limited size."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import ftfy
from ftfy.badness import is_bad

# C0 and C1 control characters except tab and newline, byte order marks inside a text, and Unicode noncharacters.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_BLANKS = " \t\u00a0"
_BLANK_LINES = re.compile(r"\n{3,}")
# Inline images in base64, as they are written by some editors and document exports.
_DATA_URI = re.compile(
    r"(?:!\[[^\[\]\n]{0,1000}\]\(\s?<?|^\[[^\[\]\n]{1,200}\]:[ \t]*<?)?"
    r"data:[\w.+-]{1,100}/[\w.+-]{1,100}(?:;[\w.=-]{1,100}){0,5};base64,[A-Za-z0-9+/]{64,}={0,2}"
    r"(?:>?(?:[ ]\"[^\"\n]{0,1000}\")?\)|>)?",
    re.MULTILINE,
)
_ENTITY = re.compile("&(?:#[0-9]+|#x[0-9a-fA-F]+|[a-zA-Z]+[0-9]*);")
# A line that contains only ASCII characters and the characters below is not mojibake. Most lines are of this kind.
# Skipping them saves much time, because checking a line for mojibake takes longer than all other cleaning.
_HARMLESS = frozenset(map(chr, range(128))) | frozenset("’‘“”–—…•·©®°→«»\u00a0")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, fix_character_width=False, fix_line_breaks=False, explain=False)

# Quotation marks as in TeX and the Penn Treebank, such as ``this''. Inline code in Markdown is not matched, because it
# does not end in ''.
_TEX_QUOTES = re.compile(r"(?<!`)``(?!`)([^`\n]*?)''")

# Since about 2001, a book begins after "*** START OF THE PROJECT GUTENBERG EBOOK X ***". Before 2001, a book begins
# after the "small print".
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

    - ftfy repairs mojibake, HTML entities, terminal escape sequences and lone surrogates. Because ftfy is slow, it is
      skipped for texts without any sign of mojibake, entities, escape sequences or surrogates.
    - Line endings are converted to "\n", ``TeX quotes'' to straight quotes, and the text to NFC.
    - Control characters, base64 images, trailing spaces and repeated blank lines are removed.
    - The header and the license of Project Gutenberg books are removed.

    Typographic quotes and full-width characters are kept.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    if ";base64," in text:
        text = _DATA_URI.sub("", text)
    if _needs_repair(text):
        text = ftfy.fix_text(text, _REPAIR)
    text = _CONTROLS.sub("", text.replace("\f", "\n\n").replace("\v", "\n"))
    text = _TEX_QUOTES.sub(r'"\1"', _without_gutenberg_frame(text))
    # A regular expression would take quadratic time for long runs of spaces.
    text = "\n".join(line.rstrip(_BLANKS) for line in text.split("\n"))
    text = _BLANK_LINES.sub("\n\n", text).strip("\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _needs_repair(text: str) -> bool:
    # The fast checks come first and are sufficient for most texts. ftfy takes longer than all other cleaning.
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
    if (end := _GUTENBERG_END.search(text, 0, start.start())) is not None:  # The small print follows the book.
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
    """Split a text into pieces of about equal size. Each piece has at most `max_bytes` UTF-8 bytes.

    If a chapter heading is near, a piece starts at this heading. All other pieces start at a paragraph, line, sentence
    or word. Only white space at the boundaries of pieces is removed. If long texts were not split, a whole book could
    be assigned to the validation set.

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
    """Yield consecutive units of at most `max_bytes` bytes, such as paragraphs, which `split_text` keeps whole."""
    if level == len(_CUTS):  # The text is a single word that is longer than a document.
        step = max(1, max_bytes // 4)  # A character has up to 4 UTF-8 bytes.
        yield from (text[at : at + step] for at in range(0, len(text), step))
        return
    for part in _CUTS[level].split(text):
        if len(part.encode()) <= max_bytes:
            yield part
        else:
            yield from _units(part, max_bytes, level + 1)
