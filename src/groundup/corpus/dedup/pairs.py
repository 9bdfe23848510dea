"""Which documents are near-copies of which: candidates by band, then their exact similarity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from groundup.corpus.dedup.columns import I64, U64, group_starts, mix, read_column, spans, write_columns
from groundup.corpus.dedup.partitions import Partition, Signatures
from groundup.corpus.dedup.shingles import jaccard

COMPARED = 8  # members of a bucket that every later one is compared with
_DEPTH = 3  # how often a large bucket is divided, less one
_HASHES = 1 << 64
_CHUNK_DOCUMENTS = 1 << 16
_CHUNK_SHINGLES = 1 << 20  # of pairs compared at a time; some 40 bytes each are in memory
_NUMBER_BITS = 40  # of a document's number; above them, the later one's place in its task


@dataclass(frozen=True, slots=True)
class BucketTask:
    """Leave the candidates of one band, of the buckets in one part of the hashes.

    A bucket holds the documents that have the same hash in this band. Copies of one text count once. Each document is
    compared with the first `COMPARED` of its bucket, so that the work grows with the size of a bucket, not with its
    square: of a million near-copies of one notice most are found by comparing them with that. A larger bucket, of pages
    made from one template, is divided by the hash of the next band, and again, and each document is compared with the
    first ones of its part, too: they are the likelier ones.

    Attributes:
        known: documents of existing corpora; they come first in the order, and none of them is to be dropped.
    """

    partitions: tuple[Partition, ...]
    band: int
    bands: int
    part: int
    parts: int
    known: int
    directory: Path

    @property
    def label(self) -> str:
        """Band and part."""
        return f"band {self.band + 1}, part {self.part + 1} of {self.parts}"

    @property
    def table(self) -> Path:
        """Pairs of numbers of documents, by the later one."""
        return self.directory / f"candidates-{self.band:04d}-{self.part:04d}"

    def done(self) -> bool:
        """Whether they are there."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write them."""
        write_columns(self.table, self._candidates(), ("later", "earlier"))

    def _candidates(self) -> Iterator[dict[str, U64]]:
        levels = list(self._levels())
        numbers = np.sort(levels[0].documents)
        for at in range(0, len(numbers), _CHUNK_DOCUMENTS):
            chunk = numbers[at : at + _CHUNK_DOCUMENTS]
            pairs = [level.pairs(max(self.known, int(chunk[0])), int(chunk[-1]) + 1) for level in levels]
            later, earlier = (np.concatenate(side) for side in zip(*pairs, strict=True))
            order = np.argsort(later, kind="stable")
            yield {"later": later[order], "earlier": earlier[order]}

    def _levels(self) -> Iterator[_Buckets]:
        """The buckets, and the parts of large ones."""
        signatures = Signatures(self.directory, self.partitions)
        hashes, documents = self._members(signatures)
        for depth in range(_DEPTH):
            buckets = _Buckets.of(hashes, documents)
            yield buckets
            large = buckets.sizes > COMPARED + 1
            by_number = np.argsort(documents[large], kind="stable")
            documents = documents[large][by_number]
            hashes = mix(
                mix(hashes[large][by_number]) ^ signatures.hashes((self.band + depth + 1) % self.bands, documents)
            )
            order = np.argsort(hashes, kind="stable")
            hashes, documents = _shared(hashes[order], documents[order])

    def _members(self, signatures: Signatures) -> tuple[U64, U64]:
        """The documents that share a bucket, by hash, then in order; of each text the first one."""
        # 0 is the hash of what has no shingles.
        low = np.uint64(max(1, self.part * _HASHES // self.parts))
        high = np.uint64((self.part + 1) * _HASHES // self.parts - 1)
        found, where = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for first, column in signatures.band(self.band):
            rows = np.flatnonzero((column >= low) & (column <= high))
            found.append(column[rows])
            where.append((rows + first).astype(np.uint64))
        hashes, documents = np.concatenate(found), np.concatenate(where)
        order = np.argsort(hashes, kind="stable")
        hashes, documents = _shared(hashes[order], documents[order])
        by_number = np.argsort(documents, kind="stable")
        ids = np.empty(len(documents), np.uint64)
        ids[by_number] = signatures.ids(documents[by_number])[:, 0]
        by_text = np.lexsort((documents, ids, hashes))
        originals = np.sort(by_text[group_starts(hashes[by_text], ids[by_text])])
        return _shared(hashes[originals], documents[originals])


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Documents by bucket, in each by number.

    Attributes:
        starts: where each one's bucket begins.
        sizes: of each one's bucket.
        order: the documents by number.
    """

    documents: U64
    starts: I64
    sizes: I64
    order: I64

    @classmethod
    def of(cls, hashes: U64, documents: U64) -> Self:
        """The buckets of documents that are sorted by hash, then by number."""
        starts = np.flatnonzero(group_starts(hashes))
        sizes = np.diff(starts, append=len(hashes))
        order = np.argsort(documents, kind="stable")
        return cls(documents, np.repeat(starts, sizes), np.repeat(sizes, sizes), order)

    def pairs(self, low: int, high: int) -> tuple[U64, U64]:
        """Each document with a number in [low, high), as often as there are others in its bucket to compare it with."""
        by_number = self.documents[self.order]
        chosen = self.order[slice(*np.searchsorted(by_number, np.array([low, high], np.uint64)).tolist())]
        counts = np.minimum(chosen - self.starts[chosen], COMPARED)
        return np.repeat(self.documents[chosen], counts), self.documents[spans(self.starts[chosen], counts)]


def _shared(hashes: U64, documents: U64) -> tuple[U64, U64]:
    """Those whose hash, of ascending ones, another one has, too."""
    first = group_starts(hashes)
    shared = ~(first & np.append(first[1:], True))
    return hashes[shared], documents[shared]


@dataclass(frozen=True, slots=True)
class CompareTask:
    """Leave, for the documents of one stretch of the order, the earlier ones that are similar enough."""

    partitions: tuple[Partition, ...]
    candidates: tuple[Path, ...]
    low: int
    high: int
    threshold: float
    directory: Path

    @property
    def label(self) -> str:
        """The stretch."""
        return f"documents {self.low:,} to {self.high:,}"

    @property
    def table(self) -> Path:
        """Pairs of numbers of documents and their similarity, by the later one, then by the earlier one."""
        return self.directory / f"similar-{self.low:014d}"

    def done(self) -> bool:
        """Whether they are there."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write them."""
        write_columns(self.table, self._similar(), ("later", "earlier", "jaccard"))

    def _similar(self) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        signatures = Signatures(self.directory, self.partitions)
        later, earlier = self._pairs()
        involved = np.unique(np.concatenate([later, earlier]))
        sizes = signatures.sizes(involved)
        of_later, of_earlier = (sizes[np.searchsorted(involved, side)] for side in (later, earlier))
        # Sets of such different sizes cannot be similar enough.
        possible = np.minimum(of_later, of_earlier) >= self.threshold * np.maximum(of_later, of_earlier)
        later, earlier, work = later[possible], earlier[possible], (of_later + of_earlier)[possible]
        for chunk in _chunks(work):
            pair = later[chunk], earlier[chunk]
            similarity = jaccard(*(_sets_of(signatures, side) for side in pair))
            near = similarity >= self.threshold
            yield {"later": pair[0][near], "earlier": pair[1][near], "jaccard": similarity[near]}

    def _pairs(self) -> tuple[U64, U64]:
        """The candidates of all bands, each once."""
        bits, mask = np.uint64(_NUMBER_BITS), np.uint64((1 << _NUMBER_BITS) - 1)
        keys = [np.empty(0, np.uint64)]
        for table in self.candidates:
            later = read_column(table, "later")
            start, stop = np.searchsorted(later, np.array([self.low, self.high], np.uint64))
            place = later[start:stop] - np.uint64(self.low)
            keys.append((place << bits) | read_column(table, "earlier")[start:stop])
        pairs = np.unique(np.concatenate(keys))
        return (pairs >> bits) + np.uint64(self.low), pairs & mask


def _chunks(work: I64) -> Iterator[slice]:
    """Stretches of about `_CHUNK_SHINGLES` of work."""
    done = np.cumsum(work)
    start = 0
    while start < len(done):
        before = int(done[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(done, before + _CHUNK_SHINGLES, side="right")))
        yield slice(start, stop)
        start = stop


def _sets_of(signatures: Signatures, documents: U64) -> tuple[npt.NDArray[np.uint32], I64]:
    """The sets of documents in any order, with repeats."""
    unique, place = np.unique(documents, return_inverse=True)
    values, offsets = signatures.sets(unique)
    sizes = np.diff(offsets)[place]
    return values[spans(offsets[place], sizes)], np.concatenate([[0], np.cumsum(sizes)])
