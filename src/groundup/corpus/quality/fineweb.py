"""The rules of FineWeb: lists, menus and repeated lines, found by statistics of a page's lines.

Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale", arXiv 2406.17557,
section 3.5 (the last of them is in their published code).
"""

from __future__ import annotations

from groundup.core.config import Config, setting
from groundup.core.types import Document
from groundup.corpus.quality.sentences import MARKS
from groundup.corpus.steps import Drop

_MARKS = frozenset(MARKS)


class FineWeb(Config):
    """Drops documents whose lines are not those of text. Blank lines do not count, whatever the extractor sets."""

    min_punctuated_lines: float = setting(
        0.12, help="smallest fraction of lines that end in a mark like a period", ge=0, le=1
    )
    max_short_lines: float = setting(0.67, help="largest fraction of short lines", ge=0, le=1)
    short_line: int = setting(30, help="a line of at most so many characters is short", ge=0)
    max_duplicate_characters: float = setting(
        0.01, help="largest fraction of the characters in lines that were there before", ge=0, le=1
    )
    max_line_breaks: float = setting(0.3, help="most line breaks for each word", ge=0)

    def __call__(self, document: Document) -> Document | Drop:
        """The document, or the first rule that it breaks."""
        from groundup.corpus.quality.analysis import analyze

        text = analyze(document.text)
        lines = text.lines
        if not lines:
            return Drop("empty")
        marked = sum(line[-1] in _MARKS for line in lines) / len(lines)
        if marked < self.min_punctuated_lines:
            return Drop("too few lines end in a mark", f"{marked:.3f} of them, at least {self.min_punctuated_lines:g}")
        short = sum(len(line) <= self.short_line for line in lines) / len(lines)
        if short > self.max_short_lines:
            return Drop("too many short lines", f"{short:.3f} of them, at most {self.max_short_lines:g}")
        unique = set(lines)
        if len(unique) < len(lines):
            share = 1 - sum(map(len, unique)) / sum(map(len, lines))
            if share > self.max_duplicate_characters:
                detail = f"{share:.3f} of the characters, at most {self.max_duplicate_characters:g}"
                return Drop("characters in duplicate lines", detail)
        breaks = (len(lines) - 1) / len(text.words)
        if breaks > self.max_line_breaks:
            return Drop("too many line breaks", f"{breaks:.3f} for each word, at most {self.max_line_breaks:g}")
        return document
