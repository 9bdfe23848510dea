"""Text made clean, and long texts cut into documents of bounded size."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import ftfy
from ftfy.badness import is_bad

# C0 and C1 controls but tab and newline, the byte order mark inside a text, and non-characters.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
_BLANKS = " \t\u00a0"
_BLANK_LINES = re.compile(r"\n{3,}")
# A picture inside of a text, as editors and exports of documents leave it: megabytes of letters that say nothing.
_DATA_URI = re.compile(
    r"(?:!\[[^\[\]\n]{0,1000}\]\(\s?<?|^\[[^\[\]\n]{1,200}\]:[ \t]*<?)?"
    r"data:[\w.+-]{1,100}/[\w.+-]{1,100}(?:;[\w.=-]{1,100}){0,5};base64,[A-Za-z0-9+/]{64,}={0,2}"
    r"(?:>?(?:[ ]\"[^\"\n]{0,1000}\")?\)|>)?",
    re.MULTILINE,
)
_ENTITY = re.compile("&(?:#[0-9]+|#x[0-9a-fA-F]+|[a-zA-Z]+[0-9]*);")
# Characters that among themselves are never a sign of mojibake. Most lines have no others, and looking for signs takes
# longer than all the rest of the cleaning.
_HARMLESS = frozenset(map(chr, range(128))) | frozenset("’‘“”–—…•·©®°→«»\u00a0")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, fix_character_width=False, fix_line_breaks=False, explain=False)

# Quotes as ``this'', the way of TeX and of the Penn Treebank. Code in Markdown never ends in ''.
_TEX_QUOTES = re.compile(r"(?<!`)``(?!`)([^`\n]*?)''")

# Since about 2001 "*** START OF THE PROJECT GUTENBERG EBOOK X ***"; before, the end of a page of "small print".
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
    """Repair and normalize one text.

    Mojibake, HTML entities, terminal escapes and lone surrogates are repaired (ftfy; only where a sign of
    them is seen, since it is slow), line ends become "\\n", control characters and pictures in base64 go,
    ``TeX quotes'' become plain ones, lines lose trailing blanks, more than one blank line becomes one, Project
    Gutenberg's header and licence are cut off, and the result is NFC. Typographic quotes and full-width forms
    stay: they are the author's.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    if ";base64," in text:
        text = _DATA_URI.sub("", text)
    if _needs_repair(text):
        text = ftfy.fix_text(text, _REPAIR)
    text = _CONTROLS.sub("", text.replace("\f", "\n\n").replace("\v", "\n"))
    text = _TEX_QUOTES.sub(r'"\1"', _without_gutenberg_frame(text))
    text = "\n".join(line.rstrip(_BLANKS) for line in text.split("\n"))  # a regex is quadratic in a run of blanks
    text = _BLANK_LINES.sub("\n\n", text).strip("\n")
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _needs_repair(text: str) -> bool:
    # Cheap looks first: most texts end here, and ftfy is slower than all the rest of the cleaning.
    if ("&" in text and _ENTITY.search(text)) or "\x1b[" in text:
        return True
    if text.isascii():
        return False
    telling = [line for line in text.split("\n") if not _HARMLESS.issuperset(line)]
    return any(is_bad(line) or _SURROGATE.search(line) for line in telling)


def _without_gutenberg_frame(text: str) -> str:
    has_frame = "PROJECT GUTENBERG" in text or "SMALL PRINT!" in text or "Project Gutenberg" in text
    start = _GUTENBERG_START.search(text) if has_frame else None
    if start is None:
        return text
    if (end := _GUTENBERG_END.search(text, 0, start.start())) is not None:  # the small print stands below the book
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
    """Cut a text of more than `max_bytes` UTF-8 bytes into pieces of about equal size, none larger.

    Cuts fall before a chapter's heading if one is near, else between paragraphs, lines, words: the best that
    is there. Nothing but the white space at the cuts is lost. Otherwise a single hash would send a whole book
    to validation.
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
    """Parts of a text that are not to be cut, each of at most `max_bytes`; together they are the text."""
    if level == len(_CUTS):  # a single word longer than a document
        step = max(1, max_bytes // 4)  # characters; UTF-8 has at most 4 bytes each
        yield from (text[at : at + step] for at in range(0, len(text), step))
        return
    for part in _CUTS[level].split(text):
        if len(part.encode()) <= max_bytes:
            yield part
        else:
            yield from _units(part, max_bytes, level + 1)
