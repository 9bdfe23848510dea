"""Keeps evaluation items out of a corpus: documents that repeat one are dropped, and the report tells which.

The rule is GPT-3's (Brown et al. 2020, arXiv 2005.14165, appendix C): texts are compared as words, without case and
punctuation, by 13-grams; a shorter text of 8 words and more counts when all of it is there. It is amended twice
against false alarms. Words that stand in more than a tenth of the items are a template and no item's own. And of a
long text one 13-gram is not enough, since a phrase of the law or a proverb has that many words: a tenth of the text
must be there, though never more than 26 words of it. GPT-3 cut a window of 200 characters out of the document; here
the whole document goes, which is a piece of `max_document_bytes` at most.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.config import Config, setting
from groundup.corpus.given import given_items
from groundup.corpus.quality.analysis import UNSPACED, n_unspaced
from groundup.corpus.steps import Drop
from groundup.files import atomic_file
from groundup.types import Document

SHORTEST = 8  # words of a text that is looked for inside documents; shorter ones only as a whole document
_TEMPLATE_ITEMS = 10  # items that may share words, at least, before these are a template
_TEMPLATE_SHARE = 0.1  # of the items
_MOST_BITS = 26  # of an n-gram's number, for the table: 64 MiB
_MOST_NGRAMS = 2  # n-grams' length of words, of which more are never asked for
_SHOWN = 10  # items named in the detail of a drop
_SAMPLES = 3  # documents named in the report for each item
_NAMED = re.compile(r"(.+?) \((\d+) %\)(?:, |$)")

_UNSPACED = re.compile(f"[{UNSPACED}]")
_ASCII_WORDS = bytes(
    byte if byte > 127 else ord(chr(byte).lower()) if chr(byte).isalnum() else ord(" ") for byte in range(256)
)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)

Keys = npt.NDArray[np.uint64]


class DecontaminationSettings(Config):
    """The evaluation files whose items must not be in the corpus."""

    files: list[Path] = setting(
        [], help="evaluation files or folders (jsonl, csv, parquet, txt, ...): documents with an item of theirs go"
    )
    ngram: int = setting(13, help="words in a row that count as a repetition", ge=SHORTEST, le=50)
    min_overlap: float = setting(
        0.1, help="share of an item's text that must be found, where it is long; 0: any n-gram", ge=0, le=1
    )


@dataclass(frozen=True, slots=True)
class Hit:
    """An evaluation item that is in a document, and how much of its text."""

    item: str
    share: float


class EvaluationIndex:
    """The n-grams of evaluation items, to be looked up in documents; made by `build_index`.

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
        self._shift = np.uint64(64 - min(len(self.keys).bit_length() + 4, _MOST_BITS))
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
        words = _word_keys(text)
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
        number = self.wholes.get(_whole_key(words)) if 0 < len(words) < SHORTEST else None
        return {} if number is None else {number: 1.0}

    def _covered(self, words: Keys) -> dict[int, int]:
        """Words of each text of the index that are in n-grams which these words have, too."""
        at: list[npt.NDArray[np.int64]] = []
        for size, ngrams in enumerate(_all_ngrams(words, self.ngram), start=1):
            if size in self._sizes:
                likely = np.unique(ngrams[self._seen[ngrams >> self._shift]])
                bounds = zip(*(np.searchsorted(self.keys, likely, side) for side in ("left", "right")), strict=True)
                at += [np.arange(first, end) for first, end in bounds if first < end]
        if not at:
            return {}
        places: dict[int, set[int]] = defaultdict(set)
        for entry in np.concatenate(at).tolist():
            number, place = int(self.texts[entry]), int(self.places[entry])
            places[number].update(range(place, place + int(self.lengths[number, 0])))
        return {number: len(covered) for number, covered in places.items()}


def build_index(
    settings: DecontaminationSettings, built_in: Iterable[tuple[str, Sequence[str]]] = ()
) -> EvaluationIndex:
    """Read the evaluation files.

    Args:
        built_in: more items: where each is from, and its texts.

    Raises:
        DataError: a file is missing, cannot be read or holds no text.
    """
    rule = "decontamination needs evaluation items that it can look for"
    found = [(_label(path, origin), texts) for path in settings.files for origin, texts in given_items(path, rule)]
    return _index([*found, *built_in], settings.ngram)


def _label(path: Path, origin: str) -> str:
    return origin if path.is_file() else f"{path.resolve().name}/{origin}"


def _index(items: Sequence[tuple[str, Sequence[str]]], ngram: int) -> EvaluationIndex:
    owners: dict[bytes, list[str]] = {}  # a text that several items share (a passage, say) is there once
    words_of: list[Keys] = []
    too_short = 0
    for item, texts in items:
        parts = [words for text in texts if len(words := _word_keys(text)) >= SHORTEST]
        if not parts:
            parts = [_word_keys("\n".join(texts))]
            too_short += len(parts[0]) < SHORTEST
        for words in parts:
            mark = words.tobytes()
            if mark not in owners:
                owners[mark] = []
                words_of.append(words)
            if owners[mark][-1:] != [item]:
                owners[mark].append(item)
    shared = list(owners.values())
    most = max(_TEMPLATE_ITEMS, int(_TEMPLATE_SHARE * len(items)))
    sizes = [min(len(words), ngram) for words in words_of]
    long = [number for number, size in enumerate(sizes) if size >= SHORTEST]
    keys = [_ngrams(words_of[number], sizes[number]) for number in long]
    texts_of = [np.full(len(found), number, np.int32) for number, found in zip(long, keys, strict=True)]
    places = [np.arange(len(found), dtype=np.int32) for found in keys]
    arrays = {
        "keys": np.concatenate([np.zeros(0, np.uint64), *keys]),
        "texts": np.concatenate([np.zeros(0, np.int32), *texts_of]),
        "places": np.concatenate([np.zeros(0, np.int32), *places]),
    }
    own = _are_few(arrays["keys"], arrays["texts"], np.array([len(items) for items in shared], np.int64), most)
    kept = np.flatnonzero(own)
    kept = kept[np.argsort(arrays["keys"][kept], kind="stable")]
    with_something = set(arrays["texts"][kept].tolist())
    wholes = [
        (_whole_key(words), number)
        for number, words in enumerate(words_of)
        if 0 < len(words) < SHORTEST and len(shared[number]) <= most
    ]
    facts = {
        "ngram": ngram,
        "items": len(items),
        "too_short": too_short,
        "only_template": len({item for number in set(long) - with_something for item in shared[number]}),
        "files": dict(Counter(file_of(item) for item, _ in items)),
    }
    lengths = np.array([(size, len(words)) for size, words in zip(sizes, words_of, strict=True)], np.int32)
    final = {name: array[kept] for name, array in arrays.items()}
    final |= {"lengths": lengths.reshape(-1, 2), "wholes": np.array(wholes, np.uint64).reshape(-1, 2)}
    return EvaluationIndex(final, shared, facts)


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
    return min(words, max(ngram, min(round(min_overlap * words), _MOST_NGRAMS * ngram)))


def _word_keys(text: str) -> Keys:
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


def _all_ngrams(words: Keys, longest: int) -> Iterator[Keys]:
    """The 1-gram, then the 2-gram, ... that begins at each word, as a number."""
    keys = words
    yield keys
    for n in range(2, longest + 1):
        keys = keys[:-1] * _BASE + words[n - 1 :]
        yield keys


def _ngrams(words: Keys, n: int) -> Keys:
    return next(islice(_all_ngrams(words, n), n - 1, None))


def _whole_key(words: Keys) -> int:
    return int(_ngrams(words, len(words))[0])


@dataclass(frozen=True, slots=True)
class Decontaminate:
    """The step that drops documents with evaluation items in them.

    Attributes:
        index: the file of an `EvaluationIndex`; each process reads it once.
    """

    index: Path
    min_overlap: float = 0.1

    def __call__(self, document: Document) -> Document | Drop:
        """The document, or which items are in it."""
        hits = _loaded(self.index).hits(document.text, self.min_overlap)
        if not hits:
            return document
        named = ", ".join(f"{hit.item} ({100 * hit.share:.0f} %)" for hit in hits[:_SHOWN])
        more = f", and {len(hits) - _SHOWN} more" if len(hits) > _SHOWN else ""
        return Drop("evaluation item", named + more)


@lru_cache(maxsize=2)
def _loaded(path: Path) -> EvaluationIndex:
    return EvaluationIndex.load(path)


def file_of(item: str) -> str:
    """The evaluation file that an item is from."""
    return item.rpartition("#")[0] or item


def contamination(index: EvaluationIndex, dropped: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What was found, for the data card: which items were hit, and by which documents.

    Args:
        dropped: origin and detail of each document that the step dropped.
    """
    documents: Counter[str] = Counter()
    samples: dict[str, list[str]] = defaultdict(list)
    total = 0
    for origin, detail in sorted(dropped):
        total += 1
        for item in _items_in(detail):
            documents[item] += 1
            if len(samples[item]) < _SAMPLES:
                samples[item].append(origin)
    hit = Counter(map(file_of, documents))
    return {
        "documents": total,
        "ngram": index.ngram,
        "items": index.facts["items"],
        "items_too_short": index.facts["too_short"],
        "items_only_template": index.facts["only_template"],
        "files": {file: {"items": items, "found": hit[file]} for file, items in index.facts["files"].items()},
        "found": [
            {"item": item, "documents": count, "samples": samples[item]}
            for item, count in sorted(documents.items(), key=lambda pair: (-pair[1], pair[0]))
        ],
    }


def _items_in(detail: str) -> Iterator[str]:
    return (found[1] for found in _NAMED.finditer(detail))
