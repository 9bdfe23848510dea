"""An index of the word n-grams in evaluation items, which finds the evaluation items in a text."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.core.files import atomic_file
from groundup.corpus.word_keys import Keys, all_ngrams, ngrams, whole_key, word_keys

MIN_WORDS = 8  # a shorter evaluation text matches only a document that consists of this text

# An n-gram belongs to a prompt template if it occurs in more than 10 items and in more than a tenth of all items.
_MIN_TEMPLATE_ITEMS = 10
_MIN_TEMPLATE_SHARE = 0.1
_MAX_TABLE_BITS = 26  # size of the hash table, which has at most 2**26 entries (64 MiB)
_MAX_NGRAMS = 2  # maximum required overlap with an evaluation text, as a multiple of the n-gram length


@dataclass(frozen=True, slots=True)
class Hit:
    """An evaluation item that a document contains, and the share of the item's text in the document."""

    item: str
    share: float


class EvaluationIndex:
    """The n-grams of evaluation items. `index_items` builds it.

    Attributes:
        keys: Hashes of the n-grams, sorted, one for each occurrence of an n-gram. Shape: [n-grams].
        texts: Number of the text that contains each n-gram.
        places: Word offset of each n-gram in its text.
        lengths: N-gram length and number of words of each text. Shape: [texts, 2].
        wholes: Text number, keyed by hash, of texts that are too short for n-grams and match only a whole document.
        items: For each text, the names of the items that contain it.
        facts: Counts for the decontamination report.
        ngram: Number of words in an n-gram.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], items: list[list[str]], facts: dict[str, Any]) -> None:
        self.keys: Keys = arrays["keys"]
        self.texts = arrays["texts"]
        self.places = arrays["places"]
        self.lengths = arrays["lengths"]
        self.wholes = {int(key): int(text) for key, text in arrays["wholes"]}
        self.items = items
        self.facts = facts
        self.ngram: int = facts["ngram"]
        self._sizes = set(self.lengths[self.texts, 0].tolist()) if len(self.keys) else set()
        # Most n-grams of a document do not occur in any item. A lookup in this hash table quickly excludes most of
        # these n-grams.
        self._shift = np.uint64(64 - min(len(self.keys).bit_length() + 4, _MAX_TABLE_BITS))
        self._seen = np.zeros(1 << (64 - int(self._shift)), np.bool_)
        self._seen[self.keys >> self._shift] = True

    def save(self, path: Path) -> None:
        """Write the index to a file, from which other processes can load it."""
        words = json.dumps({"items": self.items, "facts": self.facts}).encode()
        wholes = np.array(list(self.wholes.items()), np.uint64).reshape(-1, 2)
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                keys=self.keys,
                texts=self.texts,
                places=self.places,
                lengths=self.lengths,
                wholes=wholes,
                words=np.frombuffer(words, np.uint8),
            )

    @classmethod
    def load(cls, path: Path) -> EvaluationIndex:
        """Load an index from a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            words = json.loads(arrays["words"].tobytes())
            return cls(arrays, words["items"], words["facts"])

    def hits(self, text: str, min_overlap: float) -> list[Hit]:
        """Return the items that a text contains. The items with the largest shares in the text are first."""
        words = word_keys(text)
        found = self._whole(words)
        for number, covered in self._covered(words).items():
            size = int(self.lengths[number, 1])
            if covered >= _needed(size, self.ngram, min_overlap):
                found[number] = covered / size
        best: dict[str, float] = {}
        for number, share in found.items():
            for item in self.items[number]:
                best[item] = max(share, best.get(item, 0.0))
        return [Hit(item, share) for item, share in sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))]

    def _whole(self, words: Keys) -> dict[int, float]:
        number = self.wholes.get(whole_key(words)) if 0 < len(words) < MIN_WORDS else None
        return {} if number is None else {number: 1.0}

    def _covered(self, words: Keys) -> dict[int, int]:
        """Return, for each evaluation text, how many of its words are in n-grams that also occur in `words`."""
        at: list[npt.NDArray[np.int64]] = []
        for size, found in enumerate(all_ngrams(words, self.ngram), start=1):
            if size in self._sizes:
                candidates = np.unique(found[self._seen[found >> self._shift]])
                bounds = zip(*(np.searchsorted(self.keys, candidates, side) for side in ("left", "right")), strict=True)
                at += [np.arange(first, end) for first, end in bounds if first < end]
        if not at:
            return {}
        places: dict[int, set[int]] = defaultdict(set)
        for entry in np.concatenate(at).tolist():
            number, place = int(self.texts[entry]), int(self.places[entry])
            places[number].update(range(place, place + int(self.lengths[number, 0])))
        return {number: len(covered) for number, covered in places.items()}


def index_items(items: Sequence[tuple[str, Sequence[str]]], ngram: int) -> EvaluationIndex:
    """Build the index.

    Args:
        items: Name and texts of each item. The name of an item has the form "file#number".
        ngram: Number of words in an n-gram.
    """
    owners, too_short = _owners(items)
    words_of = [np.frombuffer(key, np.uint64) for key in owners]
    shared = list(owners.values())
    max_items = max(_MIN_TEMPLATE_ITEMS, int(_MIN_TEMPLATE_SHARE * len(items)))
    lengths = np.array([(min(len(words), ngram), len(words)) for words in words_of], np.int32).reshape(-1, 2)
    long = np.flatnonzero(lengths[:, 0] >= MIN_WORDS).tolist()
    found = [ngrams(words_of[number], int(lengths[number, 0])) for number in long]
    keys = np.concatenate([np.zeros(0, np.uint64), *found])
    counts = [len(each) for each in found]
    texts = np.repeat(np.array(long, np.int32), counts)
    places = np.concatenate([np.zeros(0, np.int32), *(np.arange(count, dtype=np.int32) for count in counts)])
    kept = np.flatnonzero(_not_template(keys, texts, np.array([len(names) for names in shared], np.int64), max_items))
    kept = kept[np.argsort(keys[kept], kind="stable")]
    only_template = set(long) - set(texts[kept].tolist())
    wholes = [
        (whole_key(words), number)
        for number, words in enumerate(words_of)
        if 0 < len(words) < MIN_WORDS and len(shared[number]) <= max_items
    ]
    arrays = {
        "keys": keys[kept],
        "texts": texts[kept],
        "places": places[kept],
        "lengths": lengths,
        "wholes": np.array(wholes, np.uint64).reshape(-1, 2),
    }
    facts = {
        "ngram": ngram,
        "items": len(items),
        "too_short": too_short,
        "only_template": len({item for number in only_template for item in shared[number]}),
        "files": dict(Counter(file_of(item) for item, _ in items)),
    }
    return EvaluationIndex(arrays, shared, facts)


def file_of(item: str) -> str:
    """Return the name of the evaluation file that contains an item."""
    return item.rpartition("#")[0] or item


def _owners(items: Sequence[tuple[str, Sequence[str]]]) -> tuple[dict[bytes, list[str]], int]:
    """Return the names of the items of each distinct text, and the number of items that are too short.

    The result maps the bytes of the word hashes of a text to item names. Several items can share a text, for example
    questions about one passage.
    """
    owners: dict[bytes, list[str]] = {}
    too_short = 0
    for item, texts in items:
        parts = [words for text in texts if len(words := word_keys(text)) >= MIN_WORDS]
        if not parts:
            parts = [word_keys("\n".join(texts))]
            too_short += len(parts[0]) < MIN_WORDS
        for words in parts:
            names = owners.setdefault(words.tobytes(), [])
            if names[-1:] != [item]:
                names.append(item)
    return owners, too_short


def _not_template(
    keys: Keys, texts: npt.NDArray[np.int32], owners: npt.NDArray[np.int64], max_items: int
) -> npt.NDArray[np.bool_]:
    """Return, for each n-gram, whether it occurs in at most `max_items` items."""
    unique, which = np.unique(keys, return_inverse=True)
    # An n-gram that repeats in a text is counted once.
    pairs = np.unique(np.stack([which.reshape(-1), texts.astype(np.int64)]), axis=1)
    counts = np.bincount(pairs[0], weights=owners[pairs[1]], minlength=len(unique))
    return np.asarray(counts[which.reshape(-1)] <= max_items)


def _needed(words: int, ngram: int, min_overlap: float) -> int:
    """Return the number of words of an evaluation text that must match."""
    return min(words, max(ngram, min(round(min_overlap * words), _MAX_NGRAMS * ngram)))
