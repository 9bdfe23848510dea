"""Functions to compute the shingle sets of texts, their MinHash signatures and their Jaccard similarities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from groundup.corpus.dedup.columns import F64, I64, U32, U64, group_starts, mix, spans

if TYPE_CHECKING:
    import pyarrow as pa

# In scripts that do not separate words by spaces, each character counts as a word.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
_SEED = 42  # random seed of the MinHash signatures
_BATCH_SIZE = 2048  # documents per call of rensa, which returns 4 kB of Python integers for each document
_LOW_32 = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Shingles:
    """The shingles of a batch of texts, as 64-bit hashes.

    Attributes:
        hashes: Hashes of the shingles of all texts, in the order of the texts. A shingle can occur several times.
        offsets: Index in `hashes` at which each text starts, and the end of the last text.
    """

    hashes: U64
    offsets: I64

    def sets(self) -> tuple[U32, I64]:
        """Return the concatenated shingle sets of the texts, and the offset of each set.

        A set contains the lower 32 bits of each hash, in ascending order and without repetition. Two different shingles
        collide with a probability of 2^-32. The expected error of the similarity of two sets of n shingles is therefore
        below n / 2^32, which is one millionth at the default maximum document size. 64-bit hashes would double the disk
        space.
        """
        rows = np.repeat(np.arange(len(self.offsets) - 1, dtype=np.uint64), np.diff(self.offsets))
        keys = np.sort((rows << np.uint64(32)) | (self.hashes & _LOW_32))
        keys = keys[group_starts(keys)]
        counts = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(self.offsets) - 1)
        return (keys & _LOW_32).astype(np.uint32), np.concatenate([[0], np.cumsum(counts)])

    def band_hashes(self, bands: int, rows: int) -> U64:
        """Return a hash of each band of the MinHash signature of each text, of shape [bands, texts].

        The hash is 0 if the text has no shingles. A signature has `bands` x `rows` values (Fast Similarity Sketching;
        Dahlgaard, Knudsen, Thorup 2017, arXiv 1704.04370). The expected fraction of values that are equal in two
        signatures is the Jaccard similarity of the two sets.
        """
        from rensa import RMinHash

        texts = len(self.offsets) - 1
        hashes = np.zeros((texts, bands), np.uint64)
        for start in range(0, texts, _BATCH_SIZE):
            offsets = self.offsets[start : start + _BATCH_SIZE + 1]
            part = np.ascontiguousarray(self.hashes[offsets[0] : offsets[-1]])
            sketch = RMinHash.digest_matrix_from_flat_token_hashes(
                part, (offsets - offsets[0]).astype(np.uint64), bands * rows, _SEED
            )
            values = np.array(sketch.to_rows(), np.uint64).reshape(-1, bands, rows)
            hashed = hashes[start : start + _BATCH_SIZE]
            for row in range(rows):
                hashed ^= values[:, :, row]
                mix(hashed)
        hashes[hashes == 0] = 1
        hashes[np.diff(self.offsets) == 0] = 0
        return hashes.T


def shingles(texts: pa.Array, ngram: int) -> Shingles:
    """Return the word n-grams of each text. A text with fewer than `ngram` words has one shingle with all its words.

    Texts are converted to lower case and split at white space. In scripts that do not separate words by spaces
    (Chinese, Japanese, Thai, ...), each character is a word. The texts must be cleaned and therefore be in NFC.
    """
    words, offsets = _words(texts)
    counts, gap = np.diff(offsets), ngram - 1
    shift = np.arange(len(counts)) * gap
    padded = np.zeros(len(words) + len(counts) * gap, np.uint64)  # The zeros separate the texts.
    padded[spans(offsets[:-1] + shift, counts)] = words
    hashes = hash_ngrams(padded, ngram)
    lengths = np.where(counts > 0, np.maximum(1, counts - gap), 0)
    return Shingles(hashes[spans(offsets[:-1] + shift, lengths)], np.concatenate([[0], np.cumsum(lengths)]))


def hash_ngrams(words: U64, ngram: int) -> U64:
    """Return the hash of each word n-gram, computed from the hashes of the words."""
    hashes = np.zeros(max(0, len(words) - ngram + 1), np.uint64)
    for place, factor in enumerate(_factors(ngram)):
        hashes += words[place : place + len(hashes)] * factor
    return mix(hashes)


@lru_cache
def _factors(ngram: int) -> U64:
    """Return a different odd factor for each position in an n-gram, so that its hash depends on the word order."""
    return mix(np.arange(1, ngram + 1, dtype=np.uint64)) | np.uint64(1)


def _words(texts: pa.Array) -> tuple[U64, I64]:
    """Return the hash of each word, and the index of the first word of each text."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from rensa import RMinHash

    is_ascii = pc.string_is_ascii(texts)
    lower = pc.ascii_lower(texts)
    if not pc.all(is_ascii).as_py():
        unicode = pc.invert(is_ascii)
        spaced = pc.replace_substring_regex(pc.utf8_lower(texts.filter(unicode)), rf"({_UNSPACED})", r" \1 ")
        lower = pc.replace_with_mask(lower, unicode, spaced)
    split = pc.utf8_split_whitespace(lower)
    encoded = pa.array(split.flatten()).dictionary_encode()
    vocabulary = encoded.dictionary.to_pylist()
    if not vocabulary:
        return np.empty(0, np.uint64), np.zeros(len(texts) + 1, np.int64)
    known = mix(np.array(RMinHash.hash_token_sets([vocabulary])[0], np.uint64))
    indices = encoded.indices.to_numpy()
    offsets = split.offsets.to_numpy().astype(np.int64) - split.offsets[0].as_py()
    if "" in vocabulary:  # The split gives an empty string if a text starts or ends with white space.
        is_word = indices != vocabulary.index("")
        indices, offsets = indices[is_word], np.concatenate([[0], np.cumsum(is_word)])[offsets]
    return known[indices], offsets


def jaccard(left: tuple[U32, I64], right: tuple[U32, I64]) -> F64:
    """Return the Jaccard similarity of the i-th set of `left` and the i-th set of `right`, for each i.

    Both arguments are in the format of `Shingles.sets`.
    """
    keys = []
    for values, offsets in (left, right):
        pairs = np.repeat(np.arange(len(offsets) - 1, dtype=np.uint64), np.diff(offsets))
        keys.append((pairs << np.uint64(32)) | values)
    both = np.sort(np.concatenate(keys))
    shared = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
    common = np.bincount(shared.astype(np.int64), minlength=len(left[1]) - 1)
    sizes = np.diff(left[1]) + np.diff(right[1])
    return common / np.maximum(1, sizes - common)
