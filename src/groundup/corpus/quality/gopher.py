"""The filters of Gopher's MassiveWeb dataset: repetition within a document, and the quality of its words and lines.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", arXiv 2112.11446,
appendix A.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.types import Document
from groundup.corpus.quality.stop_words import stop_words_in
from groundup.corpus.steps import Drop

if TYPE_CHECKING:  # NumPy is not imported here, so that recipes can be checked quickly.
    from groundup.corpus.quality.analysis import Analysis

_MIN_TOP_NGRAM = 2  # number of words in the shortest n-grams to which `top_ngrams` applies
_MIN_DUPLICATE_NGRAM = 5  # number of words in the shortest n-grams to which `duplicate_ngrams` applies
_BULLETS = frozenset("•‣◦●▪*-")
_ELLIPSES = ("...", "…")


class GopherRepetition(Config):
    """The filter that drops documents with many repeated lines, paragraphs or word n-grams (table A1).

    The fraction of repeated characters includes the second and later occurrences, but not the first. Characters in
    several overlapping n-grams are counted once. MassiveWeb does not contain documents with fewer than 50 words. In a
    document with fewer than 50 words, one repeated word pair can make up a fifth of the text. Therefore, if a document
    is short, an n-gram counts as repeated only if it occurs at least three times.
    """

    duplicate_lines: float = setting(0.30, help="maximum fraction of repeated lines", ge=0, le=1)
    duplicate_line_characters: float = setting(
        0.20, help="maximum fraction of characters in repeated lines", ge=0, le=1
    )
    duplicate_paragraphs: float = setting(0.30, help="maximum fraction of repeated paragraphs", ge=0, le=1)
    duplicate_paragraph_characters: float = setting(
        0.20, help="maximum fraction of characters in repeated paragraphs", ge=0, le=1
    )
    top_ngrams: list[float] = setting(
        [0.20, 0.18, 0.16], help="maximum fraction of characters in the most frequent 2-gram, 3-gram, ..."
    )
    duplicate_ngrams: list[float] = setting(
        [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
        help="maximum fraction of characters in repeated 5-grams, 6-grams, ...",
    )
    short_document_words: int = setting(
        50,
        help="in documents with fewer words than this, only n-grams that occur at least 3 times count as repeated",
        ge=0,
    )

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document, or a `Drop` with the reason why it is dropped."""
        from groundup.corpus.quality.analysis import analyze

        text = analyze(document.text)
        return next(self._broken(text), document)

    def _broken(self, text: Analysis) -> Iterator[Drop]:
        yield from _repeated(text.lines, "lines", self.duplicate_lines, self.duplicate_line_characters)
        yield from _repeated(
            text.paragraphs, "paragraphs", self.duplicate_paragraphs, self.duplicate_paragraph_characters
        )
        times = 2 if len(text.words) >= self.short_document_words else 3
        for n, threshold in enumerate(self.top_ngrams, _MIN_TOP_NGRAM):
            count, share = text.top_share(n, times, threshold)
            if count < times:  # If no n-gram is repeated, no longer n-gram is repeated either.
                return
            if share > threshold:
                yield Drop(f"top {n}-gram", _above(share, threshold))
        for n, threshold in enumerate(self.duplicate_ngrams, _MIN_DUPLICATE_NGRAM):
            share = text.duplicate_share(n, times)
            if share > threshold:
                yield Drop(f"duplicate {n}-grams", _above(share, threshold))
            # Longer repeated n-grams cover a subset of these characters. So if the fraction is not above the minimum of
            # all thresholds, no threshold for longer n-grams can be exceeded.
            if share <= min(self.duplicate_ngrams):
                return


def _above(share: float, threshold: float) -> str:
    return f"{share:.3f} of the characters, at most {threshold:g}"


def _repeated(parts: Sequence[str], what: str, threshold: float, character_threshold: float) -> Iterator[Drop]:
    unique = set(parts)
    if len(unique) == len(parts):
        return
    share = 1 - len(unique) / len(parts)
    if share > threshold:
        yield Drop(f"duplicate {what}", f"{share:.3f} of the {what}, at most {threshold:g}")
    share = 1 - sum(map(len, unique)) / sum(map(len, parts))
    if share > character_threshold:
        yield Drop(f"characters in duplicate {what}", _above(share, character_threshold))


class GopherQuality(Config):
    """The filter that drops documents that are not running text (appendix A.1.1).

    Words are separated by white space. In scripts that do not separate words by spaces, each character counts as a
    word, and the rules about word length and stop words do not apply. If the language of a document is unknown, the
    stop words of the language with the most matches are counted. If there is no stop word list for the language of a
    document, the rule about stop words does not apply.
    """

    min_words: int = setting(50, help="minimum number of words, not counting words that consist of symbols", ge=0)
    max_words: int = setting(100_000, help="maximum number of words", ge=1)
    min_mean_word_length: float = setting(3.0, help="minimum mean word length, in characters", ge=0)
    max_mean_word_length: float = setting(10.0, help="maximum mean word length, in characters", ge=0)
    max_symbols: float = setting(
        0.1, help="maximum number of hash signs per word, and maximum number of ellipses per word", ge=0
    )
    max_bullet_lines: float = setting(0.9, help="maximum fraction of lines that begin with a bullet point", ge=0)
    max_ellipsis_lines: float = setting(0.3, help="maximum fraction of lines that end with an ellipsis", ge=0)
    min_alphabetic_words: float = setting(
        0.8, help="minimum fraction of words that contain at least one letter", ge=0, le=1
    )
    min_stop_words: int = setting(2, help="minimum number of distinct stop words; 0 turns the rule off", ge=0)

    def __call__(self, document: Document) -> Document | Drop:
        """Return the document, or a `Drop` with the reason why it is dropped."""
        from groundup.corpus.quality.analysis import analyze

        return next(self._broken(analyze(document.text), document.language), document)

    def _broken(self, text: Analysis, language: str) -> Iterator[Drop]:
        is_word = text.word_kinds > 0  # words that contain a letter or a digit
        n_counted = int(is_word.sum())
        if n_counted < self.min_words:
            yield Drop("too few words", f"{n_counted:,}, at least {self.min_words:,}")
        if n_counted > self.max_words:
            yield Drop("too many words", f"{n_counted:,}, at most {self.max_words:,}")
        if not text.words:
            return
        if text.spaced and n_counted:
            mean = float(text.word_lengths[is_word].mean())
            if mean < self.min_mean_word_length:
                yield Drop("words too short", f"{mean:.2f} characters, at least {self.min_mean_word_length:g}")
            if mean > self.max_mean_word_length:
                yield Drop("words too long", f"{mean:.2f} characters, at most {self.max_mean_word_length:g}")
        n_words, n_lines = len(text.words), len(text.lines)
        for what, count in (("hash signs", text.text.count("#")), ("ellipses", sum(map(text.text.count, _ELLIPSES)))):
            if count > self.max_symbols * n_words:
                yield Drop(f"too many {what}", f"{count / n_words:.3f} per word, at most {self.max_symbols:g}")
        bullets = sum(line.lstrip()[0] in _BULLETS for line in text.lines) / n_lines
        if bullets > self.max_bullet_lines:
            yield Drop("too many bullet lines", f"{bullets:.3f} of the lines, at most {self.max_bullet_lines:g}")
        ellipses = sum(line.rstrip().endswith(_ELLIPSES) for line in text.lines) / n_lines
        if ellipses > self.max_ellipsis_lines:
            yield Drop("too many lines end in ...", f"{ellipses:.3f} of the lines, at most {self.max_ellipsis_lines:g}")
        lettered = int((text.word_kinds == 2).sum()) / n_words
        if lettered < self.min_alphabetic_words:
            yield Drop(
                "too few words with letters", f"{lettered:.3f} of the words, at least {self.min_alphabetic_words:g}"
            )
        if text.spaced and self.min_stop_words:
            found = stop_words_in(text.vocabulary, language)
            if found is not None and found < self.min_stop_words:
                yield Drop("too few stop words", f"{found}, at least {self.min_stop_words}")
