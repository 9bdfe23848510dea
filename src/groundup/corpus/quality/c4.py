"""The rules of C4: lines that are no sentences go, and pages on which too few sentences are left.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
arXiv 1910.10683, section 2.2.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from groundup.core.config import Config, setting
from groundup.core.errors import DataError
from groundup.core.types import Document
from groundup.corpus.quality.sentences import ENDS, count_sentences
from groundup.corpus.quality.words import n_unspaced, split_words
from groundup.corpus.steps import Drop, with_text

_ELLIPSES = ("...", "…")
_CITATION = re.compile(r"\[(?:\d+|edit|citation needed)\]")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_MAX_WORD = 1000  # characters; from C4's code, and so are the policies and the citations
_BLANK_LINES = re.compile(r"\n{3,}")


class C4(Config):
    """Takes out lines that are no sentences, then drops documents with too few sentences left.

    The paper's list of bad words is not shipped: `bad_words` names one of your own. An end mark is that of any
    script, and a closing quotation mark. Paragraphs stay apart, which C4 ran together. The removal of spans of
    three sentences seen before is not here: see the deduplication.
    """

    terminal_punctuation: bool = setting(True, help="keep only lines that end in a period, ?, ! or quotation mark")
    min_line_words: int = setting(3, help="fewest words of a line that is kept", ge=0)
    min_sentences: int = setting(5, help="fewest sentences of a document, after its lines are sorted out", ge=0)
    javascript: bool = setting(True, help='take out lines with the word "javascript"')
    policies: bool = setting(True, help="take out lines about terms of use, privacy and cookies")
    citations: bool = setting(True, help='take out "[1]", "[edit]" and "[citation needed]"')
    lorem_ipsum: bool = setting(True, help='drop documents with "lorem ipsum"')
    curly_bracket: bool = setting(True, help='drop documents with "{": they are code more often than text')
    bad_words: Path | None = setting(None, help="file of words and phrases, one a line; a document with one is dropped")

    def __call__(self, document: Document) -> Document | Drop:
        """The document without the lines that broke a rule, or the rule that it broke as a whole."""
        text = document.text
        lowered = text.lower()
        if self.lorem_ipsum and "lorem ipsum" in lowered:
            return Drop("lorem ipsum")
        if self.curly_bracket and "{" in text:
            return Drop("curly bracket")
        if self.bad_words is not None and (bad := _pattern(self.bad_words).search(lowered)):
            return Drop("bad word", bad[0].strip())
        if self.citations and "[" in text:
            text = _CITATION.sub("", text)
        unwanted = self._unwanted(lowered)
        kept, sentences = [], 0
        for line in text.split("\n"):
            if not line or line.isspace():
                kept.append("")
            elif self._keeps(line) and not (unwanted and any(phrase in line.lower() for phrase in unwanted)):
                kept.append(line)
                if sentences < self.min_sentences:
                    sentences += count_sentences(line)
        if sentences < self.min_sentences:
            return Drop("too few sentences", f"{sentences}, at least {self.min_sentences}")
        return with_text(document, _BLANK_LINES.sub("\n\n", "\n".join(kept)).strip("\n"))

    def _unwanted(self, lowered: str) -> list[str]:
        """Those of the phrases for which a line is taken out that are in this document at all."""
        phrases = (("javascript",) if self.javascript else ()) + (_POLICIES if self.policies else ())
        return [phrase for phrase in phrases if phrase in lowered]

    def _keeps(self, line: str) -> bool:
        line = line.rstrip()
        if self.terminal_punctuation and (line[-1] not in ENDS or line.endswith(_ELLIPSES)):
            return False
        if len(split_words(line)) < self.min_line_words:
            return False
        return len(line) <= _MAX_WORD or max(map(len, line.split())) <= _MAX_WORD


@lru_cache(maxsize=8)
def _pattern(path: Path) -> re.Pattern[str]:
    """Any of the phrases of a file, as whole words where their script has such."""
    try:
        phrases = [line.strip().lower() for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: {error}",
            rule="bad_words names a text file (UTF-8) with one word or phrase a line",
            fix="Give the path of such a file, or leave bad_words out.",
        ) from error
    patterns = (
        re.escape(phrase) if n_unspaced(phrase) else rf"(?<!\w){re.escape(phrase)}(?!\w)"
        for phrase in phrases
        if phrase
    )
    return re.compile("|".join(patterns) or r"(?!)")
