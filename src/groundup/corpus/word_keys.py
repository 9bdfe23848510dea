"""Words and word n-grams as numbers, for finding a text in others whatever its case, punctuation and line breaks."""

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
    """The words of a text without case and punctuation, each as 64 bits that are the same in every process."""
    words = _words(text)
    hashes = {word: zlib.crc32(word) for word in dict.fromkeys(words)}
    keys = np.fromiter(map(hashes.__getitem__, words), np.uint64, len(words)) + _BASE
    keys = (keys ^ (keys >> np.uint64(30))) * _MIX  # the sums below would keep the patterns of a CRC
    return np.asarray(keys ^ (keys >> np.uint64(27)))


def _words(text: str) -> list[bytes]:
    """Runs of letters, marks and digits; in scripts without spaces each character is one. A regex is slower."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).lower()
        if n_unspaced(text):
            text = _UNSPACED.sub(r" \g<0> ", text)
        for character in set(text):
            if not character.isascii() and unicodedata.category(character)[0] not in "LMN":
                text = text.replace(character, " ")
    return text.encode("utf-8", "surrogatepass").translate(_ASCII_WORDS).split()


def all_ngrams(words: Keys, longest: int) -> Iterator[Keys]:
    """The 1-gram, then the 2-gram, ... that begins at each word, as a number."""
    keys = words
    yield keys
    for n in range(2, longest + 1):
        keys = keys[:-1] * _BASE + words[n - 1 :]
        yield keys


def ngrams(words: Keys, n: int) -> Keys:
    """The n-gram that begins at each word, as a number."""
    return next(islice(all_ngrams(words, n), n - 1, None))


def whole_key(words: Keys) -> int:
    """All words together as a number."""
    return int(ngrams(words, len(words))[0])
