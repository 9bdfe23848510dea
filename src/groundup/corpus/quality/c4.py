"""The C4 filter, which removes lines that are not sentences and then drops documents with too few sentences.

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
# This limit, the policy phrases and the citation pattern are not in the paper, but in the code of C4.
_MAX_WORD_LENGTH = 1000  # characters
_BLANK_LINES = re.compile(r"\n{3,}")


class C4(Config):
    """The C4 filter with its thresholds.

    The filter differs from the paper in four points. The list of bad words is not included, but `bad_words` can be set
    to your own list. Terminal punctuation of all scripts is accepted. Paragraph breaks are kept. Repeated spans of
    three sentences are not removed, because there is a separate step for repeated text (see `RepeatedTextSettings`).
    """

    terminal_punctuation: bool = setting(True, help='remove lines that do not end in ".", "?", "!" or a quotation mark')
    min_line_words: int = setting(3, help="minimum number of words in a line; shorter lines are removed", ge=0)
    min_sentences: int = setting(
        5,
        help="minimum number of sentences in the remaining lines; documents with fewer are dropped",
        ge=0,
    )
    javascript: bool = setting(True, help='remove lines that contain the word "javascript"')
    policies: bool = setting(True, help="remove lines about terms of use, privacy or cookies")
    citations: bool = setting(True, help='remove "[1]", "[edit]" and "[citation needed]"')
    lorem_ipsum: bool = setting(True, help='drop documents that contain "lorem ipsum"')
    curly_bracket: bool = setting(True, help='drop documents that contain "{", which are mostly code')
    bad_words: Path | None = setting(
        None, help="file with one word or phrase per line; documents that contain one of them are dropped"
    )

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document without the removed lines, or a `Drop` with the reason why it is dropped."""
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
        """Return the phrases that occur in the document and whose lines must be removed."""
        phrases = (("javascript",) if self.javascript else ()) + (_POLICIES if self.policies else ())
        return [phrase for phrase in phrases if phrase in lowered]

    def _keeps(self, line: str) -> bool:
        line = line.rstrip()
        if self.terminal_punctuation and (line[-1] not in ENDS or line.endswith(_ELLIPSES)):
            return False
        if len(split_words(line)) < self.min_line_words:
            return False
        return len(line) <= _MAX_WORD_LENGTH or max(map(len, line.split())) <= _MAX_WORD_LENGTH


@lru_cache(maxsize=8)
def _pattern(path: Path) -> re.Pattern[str]:
    """Return a pattern that matches the phrases of a file.

    In scripts that separate words by spaces, a phrase matches only whole words.
    """
    try:
        phrases = [line.strip().lower() for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: {error}",
            rule="bad_words must be a UTF-8 text file with one word or phrase per line",
            fix="Correct the path or remove bad_words.",
        ) from error
    patterns = (
        re.escape(phrase) if n_unspaced(phrase) else rf"(?<!\w){re.escape(phrase)}(?!\w)"
        for phrase in phrases
        if phrase
    )
    return re.compile("|".join(patterns) or r"(?!)")
