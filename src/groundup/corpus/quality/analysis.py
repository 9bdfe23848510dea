"""What several rules ask of one text, worked out once: its lines, its words, its repeated word n-grams."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from groundup.corpus.quality.words import n_unspaced, split_words

Keys = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]

_UNSPACED_SHARE = 0.3  # of the characters, from which on rules about spaced words say nothing
_LETTER = re.compile(r"[^\W\d_]")
# Any odd number with its bits well mixed: n-grams of words are told apart by 64 bits of a polynomial in it.
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Analysis:
    """A text and what is asked of it; each answer is found when it is first wanted, and kept."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._ngrams: dict[int, Keys] = {}

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank."""
        return [line for line in self.text.split("\n") if line and not line.isspace()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What stands between blank lines."""
        return [part.strip("\n") for part in self.text.split("\n\n") if part and not part.isspace()]

    @cached_property
    def spaced(self) -> bool:
        """Whether words are set apart by spaces in this text's script, by and large."""
        return n_unspaced(self.text) <= _UNSPACED_SHARE * len(self.text)

    @cached_property
    def words(self) -> list[str]:
        """The words, in order (see `split_words`)."""
        return split_words(self.text)

    @cached_property
    def _numbered(self) -> tuple[dict[str, int], Keys]:
        vocabulary: defaultdict[str, int] = defaultdict()
        vocabulary.default_factory = vocabulary.__len__  # the next number
        ids = np.fromiter(map(vocabulary.__getitem__, self.words), np.uint64, len(self.words))
        vocabulary.default_factory = None
        return vocabulary, ids

    @property
    def vocabulary(self) -> dict[str, int]:
        """Each different word and its number, in order of appearance."""
        return self._numbered[0]

    @property
    def word_ids(self) -> Keys:
        """The number of each word."""
        return self._numbered[1]

    @cached_property
    def word_lengths(self) -> Counts:
        """Characters of each word."""
        return np.fromiter(map(len, self.vocabulary), np.int64, len(self.vocabulary))[self.word_ids]

    @cached_property
    def word_kinds(self) -> npt.NDArray[np.uint8]:
        """Of each word: 2 if it has a letter, 1 if only digits, 0 if it is nothing but signs."""
        has_letter = _LETTER.search
        kinds = [
            2 if word.isalpha() or has_letter(word) else 1 if any(map(str.isdigit, word)) else 0
            for word in self.vocabulary
        ]
        return np.array(kinds, np.uint8)[self.word_ids]

    @property
    def characters(self) -> int:
        """Characters of all words together."""
        return int(self._ends[-1])

    @cached_property
    def _ends(self) -> Counts:
        ends = np.zeros(len(self.words) + 1, np.int64)
        np.cumsum(self.word_lengths, out=ends[1:])
        return ends

    def spans(self, n: int) -> Counts:
        """Characters of the n-gram that begins at each word."""
        return np.asarray(self._ends[n:] - self._ends[:-n])

    def ngrams(self, n: int) -> Keys:
        """The n-gram that begins at each word, as a number; equal numbers are equal n-grams (but for 1 in 2^64)."""
        if n == 1:
            return self.word_ids
        if n not in self._ngrams:
            self._ngrams[n] = self.ngrams(n - 1)[:-1] * _BASE + self.word_ids[n - 1 :]
        return self._ngrams[n]

    def top_share(self, n: int, times: int, most: float) -> tuple[int, float]:
        """How often the most frequent n-gram occurs, and its share of the characters (0 if that is at most `most`)."""
        ordered = np.sort(self.ngrams(n))
        starts, counts = _runs(ordered)
        if len(starts) == len(ordered):
            return min(len(starts), 1), 0.0
        count = int(counts.max())
        spans = self.spans(n)
        if count < times or count * int(spans.max()) <= most * self.characters:
            return count, 0.0
        top = ordered[starts[counts == count]]  # several may be equally frequent: the first in the text is meant
        first = int(np.isin(self.ngrams(n), top).argmax())
        return count, count * int(spans[first]) / self.characters

    def duplicate_share(self, n: int, times: int) -> float:
        """The share of the characters in second and later occurrences of n-grams that occur so many times."""
        keys = self.ngrams(n)
        order = np.argsort(keys, kind="stable")
        starts, counts = _runs(keys[order])
        if len(starts) == len(keys):
            return 0.0
        again = np.repeat(counts >= times, counts)
        again[starts] = False
        at = order[again]
        covered = np.zeros(len(self.words) + 1, np.int64)  # +1 where a repeated n-gram begins, -1 behind it
        covered[at] += 1
        covered[at + n] -= 1
        inside = np.cumsum(covered[:-1]) > 0
        return int(self.word_lengths[inside].sum()) / self.characters


def _runs(ordered: Keys) -> tuple[Counts, Counts]:
    """Where a new value begins in a sorted array, and how often it is there."""
    new = np.ones(len(ordered) + 1, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:-1])
    bounds = np.flatnonzero(new)
    return bounds[:-1], bounds[1:] - bounds[:-1]


@lru_cache(maxsize=1)  # filters look at the same text one after another
def analyze(text: str) -> Analysis:
    """The analysis of a text."""
    return Analysis(text)
