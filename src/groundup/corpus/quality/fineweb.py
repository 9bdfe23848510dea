"""The FineWeb filter, which drops lists, menus and repeated lines on the basis of statistics about the lines of a page.

Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale", arXiv 2406.17557,
section 3.5. The rule about the number of line breaks is not in the paper, but in the published code.
"""

from __future__ import annotations

from groundup.core.config import Config, setting
from groundup.core.types import Document
from groundup.corpus.quality.sentences import MARKS
from groundup.corpus.steps import Drop

_MARKS = frozenset(MARKS)


class FineWeb(Config):
    """The FineWeb filter with its thresholds. Blank lines are ignored."""

    min_punctuated_lines: float = setting(
        0.12, help="minimum fraction of lines that end in terminal punctuation", ge=0, le=1
    )
    max_short_lines: float = setting(0.67, help="maximum fraction of short lines", ge=0, le=1)
    short_line: int = setting(30, help="maximum length of a short line, in characters", ge=0)
    max_duplicate_characters: float = setting(0.01, help="maximum fraction of characters in repeated lines", ge=0, le=1)
    max_line_breaks: float = setting(0.3, help="maximum number of line breaks per word", ge=0)

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document, or a `Drop` with the reason why it is dropped."""
        from groundup.corpus.quality.analysis import analyze

        text = analyze(document.text)
        lines = text.lines
        if not lines:
            return Drop("empty")
        marked = sum(line[-1] in _MARKS for line in lines) / len(lines)
        if marked < self.min_punctuated_lines:
            return Drop(
                "too few lines end in punctuation", f"{marked:.3f} of the lines, at least {self.min_punctuated_lines:g}"
            )
        short = sum(len(line) <= self.short_line for line in lines) / len(lines)
        if short > self.max_short_lines:
            return Drop("too many short lines", f"{short:.3f} of the lines, at most {self.max_short_lines:g}")
        unique = set(lines)
        if len(unique) < len(lines):
            share = 1 - sum(map(len, unique)) / sum(map(len, lines))
            if share > self.max_duplicate_characters:
                detail = f"{share:.3f} of the characters, at most {self.max_duplicate_characters:g}"
                return Drop("characters in duplicate lines", detail)
        breaks = (len(lines) - 1) / len(text.words)
        if breaks > self.max_line_breaks:
            return Drop("too many line breaks", f"{breaks:.3f} per word, at most {self.max_line_breaks:g}")
        return document
