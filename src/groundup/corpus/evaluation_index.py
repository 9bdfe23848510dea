"""An index of evaluation items by their word n-grams: which of them are in a text, and how much of each."""

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

MIN_WORDS = 8  # words of a text that is looked for inside documents; shorter ones only as a whole document
_TEMPLATE_ITEMS = 10  # items that may share words, at least, before these are a template
_TEMPLATE_SHARE = 0.1  # of the items
_MAX_TABLE_BITS = 26  # of an n-gram's number, for the table: 64 MiB
_MAX_NGRAMS = 2  # n-grams' length of words, of which more are never asked for


@dataclass(frozen=True, slots=True)
class Hit:
    """An evaluation item that is in a document, and how much of its text."""

    item: str
    share: float


class EvaluationIndex:
    """The n-grams of evaluation items, to be looked up in documents; made by `index_items`.

    Attributes:
        keys: n-grams as sorted numbers, one for each occurrence in a text.
        texts: the text of each key.
        places: the index of the word in that text at which the n-gram begins.
        lengths: of each text, the length of its n-grams and its words.
        wholes: of texts too short to be looked for inside documents, the key of all their words, and their number.
        items: of each text, the items that have it.
        ngram: words in an n-gram.
        facts: counts for the report.
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
        # Nearly all n-grams of a document are in no item: one look into a sparse table settles that.
        self._shift = np.uint64(64 - min(len(self.keys).bit_length() + 4, _MAX_TABLE_BITS))
        self._seen = np.zeros(1 << (64 - int(self._shift)), np.bool_)
        self._seen[self.keys >> self._shift] = True

    def save(self, path: Path) -> None:
        """Write the index to a file, for other processes."""
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
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            words = json.loads(arrays["words"].tobytes())
            return cls(arrays, words["items"], words["facts"])

    def hits(self, text: str, min_overlap: float) -> list[Hit]:
        """The items that are in a text, those most of which is there first."""
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
        """Words of each text of the index that are in n-grams which these words have, too."""
        at: list[npt.NDArray[np.int64]] = []
        for size, found in enumerate(all_ngrams(words, self.ngram), start=1):
            if size in self._sizes:
                likely = np.unique(found[self._seen[found >> self._shift]])
                bounds = zip(*(np.searchsorted(self.keys, likely, side) for side in ("left", "right")), strict=True)
                at += [np.arange(first, end) for first, end in bounds if first < end]
        if not at:
            return {}
        places: dict[int, set[int]] = defaultdict(set)
        for entry in np.concatenate(at).tolist():
            number, place = int(self.texts[entry]), int(self.places[entry])
            places[number].update(range(place, place + int(self.lengths[number, 0])))
        return {number: len(covered) for number, covered in places.items()}


def index_items(items: Sequence[tuple[str, Sequence[str]]], ngram: int) -> EvaluationIndex:
    """Make an index.

    Args:
        items: where each is from, "file#number", and its texts.
        ngram: words in a row that count as a repetition.
    """
    owners, too_short = _owners(items)
    words_of = [np.frombuffer(mark, np.uint64) for mark in owners]
    shared = list(owners.values())
    most = max(_TEMPLATE_ITEMS, int(_TEMPLATE_SHARE * len(items)))
    lengths = np.array([(min(len(words), ngram), len(words)) for words in words_of], np.int32).reshape(-1, 2)
    long = np.flatnonzero(lengths[:, 0] >= MIN_WORDS).tolist()
    found = [ngrams(words_of[number], int(lengths[number, 0])) for number in long]
    keys = np.concatenate([np.zeros(0, np.uint64), *found])
    counts = [len(each) for each in found]
    texts = np.repeat(np.array(long, np.int32), counts)
    places = np.concatenate([np.zeros(0, np.int32), *(np.arange(count, dtype=np.int32) for count in counts)])
    kept = np.flatnonzero(_are_few(keys, texts, np.array([len(names) for names in shared], np.int64), most))
    kept = kept[np.argsort(keys[kept], kind="stable")]
    only_template = set(long) - set(texts[kept].tolist())
    wholes = [
        (whole_key(words), number)
        for number, words in enumerate(words_of)
        if 0 < len(words) < MIN_WORDS and len(shared[number]) <= most
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
    """The evaluation file that an item is from."""
    return item.rpartition("#")[0] or item


def _owners(items: Sequence[tuple[str, Sequence[str]]]) -> tuple[dict[bytes, list[str]], int]:
    """The items of each different text, by the bytes of its word keys, and how many items are too short to look for.

    A text that several items share (a passage with questions, say) is there once.
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


def _are_few(
    keys: Keys, texts: npt.NDArray[np.int32], owners: npt.NDArray[np.int64], most: int
) -> npt.NDArray[np.bool_]:
    """Of each n-gram, whether it is in at most so many items."""
    unique, which = np.unique(keys, return_inverse=True)
    pairs = np.unique(np.stack([which.reshape(-1), texts.astype(np.int64)]), axis=1)  # an n-gram twice in a text is one
    counts = np.bincount(pairs[0], weights=owners[pairs[1]], minlength=len(unique))
    return np.asarray(counts[which.reshape(-1)] <= most)


def _needed(words: int, ngram: int, min_overlap: float) -> int:
    """Words of a text of so many that must be found."""
    return min(words, max(ngram, min(round(min_overlap * words), _MAX_NGRAMS * ngram)))
