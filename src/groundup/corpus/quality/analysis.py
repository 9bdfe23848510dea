"""Statistics of a text that several filters use, such as its lines, words and repeated word n-grams.

Each statistic is computed when it is first used, and then cached.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from groundup.corpus.quality.words import n_unspaced, split_words

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]

# Filters of word lengths apply only if at most this fraction of the characters belongs to scripts that do not separate
# words by spaces.
_MAX_UNSPACED_SHARE = 0.3
_LETTER = re.compile(r"[^\W\d_]")
# Base of the polynomial hash of n-grams. Any odd number with well-mixed bits is a suitable base.
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Analysis:
    """A text and its statistics, which are computed lazily and cached."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._ngrams: dict[int, Keys] = {}

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text, except blank lines."""
        return [line for line in self.text.split("\n") if line and not line.isspace()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """The paragraphs of the text, which are separated by blank lines."""
        return [part.strip("\n") for part in self.text.split("\n\n") if part and not part.isspace()]

    @cached_property
    def spaced(self) -> bool:
        """Whether at least 70 % of the characters belong to scripts that separate words by spaces."""
        return n_unspaced(self.text) <= _MAX_UNSPACED_SHARE * len(self.text)

    @cached_property
    def words(self) -> list[str]:
        """The words of the text in order, as `split_words` returns them."""
        return split_words(self.text)

    @cached_property
    def _numbered(self) -> tuple[dict[str, int], Keys]:
        vocabulary: defaultdict[str, int] = defaultdict()
        vocabulary.default_factory = vocabulary.__len__  # A new word gets the next ID.
        ids = np.fromiter(map(vocabulary.__getitem__, self.words), np.uint64, len(self.words))
        vocabulary.default_factory = None
        return vocabulary, ids

    @property
    def vocabulary(self) -> dict[str, int]:
        """A dictionary from each distinct word to its ID. The words are in the order of their first occurrence."""
        return self._numbered[0]

    @property
    def word_ids(self) -> Keys:
        """The ID of each word of the text."""
        return self._numbered[1]

    @cached_property
    def word_lengths(self) -> Counts:
        """The length of each word of the text, in characters."""
        return np.fromiter(map(len, self.vocabulary), np.int64, len(self.vocabulary))[self.word_ids]

    @cached_property
    def word_kinds(self) -> npt.NDArray[np.uint8]:
        """The kind of each word of the text.

        The kind is 2 if the word contains a letter, 1 if it contains a digit but no letter, and 0 if it consists of
        symbols only.
        """
        has_letter = _LETTER.search
        kinds = [
            2 if word.isalpha() or has_letter(word) else 1 if any(map(str.isdigit, word)) else 0
            for word in self.vocabulary
        ]
        return np.array(kinds, np.uint8)[self.word_ids]

    @property
    def characters(self) -> int:
        """The total length of all words, in characters."""
        return int(self._ends[-1])

    @cached_property
    def _ends(self) -> Counts:
        ends = np.zeros(len(self.words) + 1, np.int64)
        np.cumsum(self.word_lengths, out=ends[1:])
        return ends

    def spans(self, n: int) -> Counts:
        """Return, for each word, the length in characters of the n-gram that begins with this word."""
        return np.asarray(self._ends[n:] - self._ends[:-n])

    def ngrams(self, n: int) -> Keys:
        """Return, for each word, a 64-bit hash of the n-gram that begins with this word."""
        if n == 1:
            return self.word_ids
        if n not in self._ngrams:
            self._ngrams[n] = self.ngrams(n - 1)[:-1] * _BASE + self.word_ids[n - 1 :]
        return self._ngrams[n]

    def top_share(self, n: int, times: int, threshold: float) -> tuple[int, float]:
        """Return the count of the most frequent n-gram, and the fraction of the characters in its occurrences.

        Args:
            n: Number of words in an n-gram.
            times: Minimum count. If the n-gram occurs less often, the returned fraction is 0.
            threshold: Maximum fraction that the filter allows. To save time, the returned fraction may be 0 if the
                actual fraction is at most `threshold`.
        """
        ordered = np.sort(self.ngrams(n))
        starts, counts = _runs(ordered)
        if len(starts) == len(ordered):
            return min(len(starts), 1), 0.0
        count = int(counts.max())
        spans = self.spans(n)
        if count < times or count * int(spans.max()) <= threshold * self.characters:
            return count, 0.0
        # If several n-grams are equally frequent, the n-gram that occurs first in the text is used.
        top = ordered[starts[counts == count]]
        first = int(np.isin(self.ngrams(n), top).argmax())
        return count, count * int(spans[first]) / self.characters

    def duplicate_share(self, n: int, times: int) -> float:
        """Return the fraction of the characters in repeated n-grams.

        An n-gram is repeated if it occurs at least `times` times. The characters of the first occurrence of an n-gram
        are not counted. A character in several overlapping n-grams is counted once.
        """
        keys = self.ngrams(n)
        order = np.argsort(keys, kind="stable")
        starts, counts = _runs(keys[order])
        if len(starts) == len(keys):
            return 0.0
        again = np.repeat(counts >= times, counts)
        again[starts] = False
        at = order[again]
        # The array has +1 at the start of each repeated n-gram and -1 after its end. The cumulative sum of the array is
        # therefore positive inside repeated n-grams.
        covered = np.zeros(len(self.words) + 1, np.int64)
        covered[at] += 1
        covered[at + n] -= 1
        inside = np.cumsum(covered[:-1]) > 0
        return int(self.word_lengths[inside].sum()) / self.characters


def _runs(ordered: Keys) -> tuple[Counts, Counts]:
    """Return the start and the length of each run of equal values in a sorted array."""
    new = np.ones(len(ordered) + 1, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:-1])
    bounds = np.flatnonzero(new)
    return bounds[:-1], bounds[1:] - bounds[:-1]


@lru_cache(maxsize=1)  # Consecutive filters process the same text.
def analyze(text: str) -> Analysis:
    """Return an `Analysis` of a text. The most recent `Analysis` is cached."""
    return Analysis(text)
