"""Hashes of words and word n-grams, which are used to find texts regardless of case, punctuation and line breaks."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

from groundup.corpus.quality.words import UNSPACED, n_unspaced

_UNSPACED = re.compile(f"[{UNSPACED}]")
_ASCII_WORDS = bytes(
    byte if byte > 127 else ord(chr(byte).lower()) if chr(byte).isalnum() else ord(" ") for byte in range(256)
)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)

Keys = npt.NDArray[np.uint64]


def word_keys(text: str) -> Keys:
    """Return a 64-bit hash of each word of a text. Case and punctuation are ignored.

    Unlike the results of Python's `hash`, the returned hashes are the same in all processes.
    """
    words = _words(text)
    hashes = {word: zlib.crc32(word) for word in dict.fromkeys(words)}
    keys = np.fromiter(map(hashes.__getitem__, words), np.uint64, len(words)) + _BASE
    keys = (keys ^ (keys >> np.uint64(30))) * _MIX  # The sums in n-gram hashes need well-mixed bits.
    return np.asarray(keys ^ (keys >> np.uint64(27)))


def _words(text: str) -> list[bytes]:
    """Split a text into runs of letters, combining marks and digits.

    In scripts that do not separate words by spaces, each character is a word.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).lower()
        if n_unspaced(text):
            text = _UNSPACED.sub(r" \g<0> ", text)
        for character in set(text):
            if not character.isascii() and unicodedata.category(character)[0] not in "LMN":
                text = text.replace(character, " ")
    return text.encode("utf-8", "surrogatepass").translate(_ASCII_WORDS).split()


def all_ngrams(words: Keys, longest: int) -> Iterator[Keys]:
    """Yield the hashes of all 1-grams, then of all 2-grams, and so on up to the n-grams with `longest` words."""
    keys = words
    yield keys
    for n in range(2, longest + 1):
        keys = keys[:-1] * _BASE + words[n - 1 :]
        yield keys


def ngrams(words: Keys, n: int) -> Keys:
    """Return, for each word, the hash of the n-gram that begins with this word."""
    return next(islice(all_ngrams(words, n), n - 1, None))


def whole_key(words: Keys) -> int:
    """Return the hash of the n-gram that consists of all words."""
    return int(ngrams(words, len(words))[0])
