"""The rules of Gopher's MassiveWeb: repetition within a document, and the quality of its words and lines.

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

if TYPE_CHECKING:  # NumPy is imported where it works: recipes are checked without it
    from groundup.corpus.quality.analysis import Analysis

_FIRST_TOP = 2  # words in the shortest n-gram of each of the two rules
_FIRST_DUPLICATE = 5
_BULLETS = frozenset("•‣◦●▪*-")
_ELLIPSES = ("...", "…")


class GopherRepetition(Config):
    """Drops documents that repeat themselves: lines, paragraphs, word n-grams (table A1).

    A fraction counts the characters covered by second and later occurrences, overlaps once. An n-gram that occurs
    once is not repeated, however large its share of a short text. Gopher saw no document of under 50 words: in
    those, where any two words said twice are a fifth of all, only what occurs three times counts.
    """

    duplicate_lines: float = setting(0.30, help="largest fraction of lines that were there before", ge=0, le=1)
    duplicate_line_characters: float = setting(0.20, help="the same, in characters", ge=0, le=1)
    duplicate_paragraphs: float = setting(0.30, help="largest fraction of paragraphs there before", ge=0, le=1)
    duplicate_paragraph_characters: float = setting(0.20, help="the same, in characters", ge=0, le=1)
    top_ngrams: list[float] = setting(
        [0.20, 0.18, 0.16], help="largest fraction of characters in the most frequent 2-gram, 3-gram, ..."
    )
    duplicate_ngrams: list[float] = setting(
        [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
        help="largest fraction of characters in repeated 5-grams, 6-grams, ...",
    )
    short_document_words: int = setting(
        50, help="documents of fewer words are short: there n-grams count from 3 times on", ge=0
    )

    def __call__(self, document: Document) -> Document | Drop:
        """The document, or what repeats in it."""
        from groundup.corpus.quality.analysis import analyze

        text = analyze(document.text)
        return next(self._broken(text), document)

    def _broken(self, text: Analysis) -> Iterator[Drop]:
        yield from _repeated(text.lines, "lines", self.duplicate_lines, self.duplicate_line_characters)
        yield from _repeated(
            text.paragraphs, "paragraphs", self.duplicate_paragraphs, self.duplicate_paragraph_characters
        )
        times = 2 if len(text.words) >= self.short_document_words else 3
        for n, most in enumerate(self.top_ngrams, _FIRST_TOP):
            count, share = text.top_share(n, times, most)
            if count < times:  # then nothing longer is repeated either
                return
            if share > most:
                yield Drop(f"top {n}-gram", _above(share, most))
        for n, most in enumerate(self.duplicate_ngrams, _FIRST_DUPLICATE):
            share = text.duplicate_share(n, times)
            if share > most:
                yield Drop(f"duplicate {n}-grams", _above(share, most))
            # What longer n-grams cover is part of what these cover, so no later threshold can be passed.
            if share <= min(self.duplicate_ngrams):
                return


def _above(share: float, most: float) -> str:
    return f"{share:.3f} of the characters, at most {most:g}"


def _repeated(parts: Sequence[str], what: str, most: float, most_characters: float) -> Iterator[Drop]:
    unique = set(parts)
    if len(unique) == len(parts):
        return
    share = 1 - len(unique) / len(parts)
    if share > most:
        yield Drop(f"duplicate {what}", f"{share:.3f} of the {what}, at most {most:g}")
    share = 1 - sum(map(len, unique)) / sum(map(len, parts))
    if share > most_characters:
        yield Drop(f"characters in duplicate {what}", _above(share, most_characters))


class GopherQuality(Config):
    """Drops documents whose words and lines are not those of running text (appendix A.1.1).

    Words stand between white space. The rules on the length of words and on stop words ask nothing of scripts
    without spaces, in which every character is counted as a word. Stop words are those of the document's language;
    where that was not identified, of any language that we know some of; and those of other languages are not asked.
    """

    min_words: int = setting(50, help="fewest words; signs alone are none", ge=0)
    max_words: int = setting(100_000, help="most words", ge=1)
    min_mean_word_length: float = setting(3.0, help="smallest mean length of a word, in characters", ge=0)
    max_mean_word_length: float = setting(10.0, help="largest mean length of a word, in characters", ge=0)
    max_symbols: float = setting(0.1, help="most hash signs, and most ellipses, for each word", ge=0)
    max_bullet_lines: float = setting(0.9, help="largest fraction of lines that begin with a bullet point", ge=0)
    max_ellipsis_lines: float = setting(0.3, help="largest fraction of lines that end with an ellipsis", ge=0)
    min_alphabetic_words: float = setting(0.8, help="smallest fraction of words that have a letter", ge=0, le=1)
    min_stop_words: int = setting(2, help="fewest different stop words; 0: none are asked for", ge=0)

    def __call__(self, document: Document) -> Document | Drop:
        """The document, or the first rule that it breaks."""
        from groundup.corpus.quality.analysis import analyze

        return next(self._broken(analyze(document.text), document.language), document)

    def _broken(self, text: Analysis, language: str) -> Iterator[Drop]:
        real = text.word_kinds > 0
        n_real = int(real.sum())
        if n_real < self.min_words:
            yield Drop("too few words", f"{n_real:,}, at least {self.min_words:,}")
        if n_real > self.max_words:
            yield Drop("too many words", f"{n_real:,}, at most {self.max_words:,}")
        if not text.words:
            return
        if text.spaced and n_real:
            mean = float(text.word_lengths[real].mean())
            if mean < self.min_mean_word_length:
                yield Drop("words too short", f"{mean:.2f} characters, at least {self.min_mean_word_length:g}")
            if mean > self.max_mean_word_length:
                yield Drop("words too long", f"{mean:.2f} characters, at most {self.max_mean_word_length:g}")
        n_words, n_lines = len(text.words), len(text.lines)
        for what, count in (("hash signs", text.text.count("#")), ("ellipses", sum(map(text.text.count, _ELLIPSES)))):
            if count > self.max_symbols * n_words:
                yield Drop(f"too many {what}", f"{count / n_words:.3f} a word, at most {self.max_symbols:g}")
        bullets = sum(line.lstrip()[0] in _BULLETS for line in text.lines) / n_lines
        if bullets > self.max_bullet_lines:
            yield Drop("too many bullet lines", f"{bullets:.3f} of the lines, at most {self.max_bullet_lines:g}")
        ellipses = sum(line.rstrip().endswith(_ELLIPSES) for line in text.lines) / n_lines
        if ellipses > self.max_ellipsis_lines:
            yield Drop("too many lines end in ...", f"{ellipses:.3f} of the lines, at most {self.max_ellipsis_lines:g}")
        lettered = int((text.word_kinds == 2).sum()) / n_words
        if lettered < self.min_alphabetic_words:
            yield Drop("too few words with letters", f"{lettered:.3f} of them, at least {self.min_alphabetic_words:g}")
        if text.spaced and self.min_stop_words:
            found = stop_words_in(text.vocabulary, language)
            if found is not None and found < self.min_stop_words:
                yield Drop("too few stop words", f"{found}, at least {self.min_stop_words}")
