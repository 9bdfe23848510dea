"""Tasks that find pairs of near-duplicates: first the candidate pairs of each band, then their exact similarity."""

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

COMPARED = 8  # Each document of a bucket is compared with the first 8 documents of this bucket.
_NUM_LEVELS = 3  # number of levels of buckets; each level splits the large buckets of the previous level
_HASHES = 1 << 64
_CHUNK_DOCUMENTS = 1 << 16
_CHUNK_SHINGLES = 1 << 20  # approximate number of shingles per chunk of pairs; a shingle takes about 40 bytes of memory
_NUMBER_BITS = 40  # number of lower bits of the key of a pair that store the number of the earlier document


@dataclass(frozen=True, slots=True)
class BucketTask:
    """A task that writes the candidate pairs of one band, for the buckets in one part of the hash range.

    A bucket contains the documents that have the same hash in this band. Of several exact duplicates, a bucket contains
    only the first. Each document is compared with the first `COMPARED` documents of its bucket, so the cost is linear
    in the size of the bucket. These comparisons find most near-duplicates of one text.

    Pages that were generated from the same template also share a large bucket, even if their texts differ. A large
    bucket is therefore split by the hash of the next band, up to `_NUM_LEVELS` levels. Each document is also compared
    with the first documents of its smaller bucket, because these documents are more similar to it.

    Attributes:
        partitions: All partitions.
        band: Index of the band, from 0.
        bands: Number of bands.
        part: Index of the part of the hash range, from 0.
        parts: Number of parts of the hash range.
        known: Number of documents in existing corpora. These documents have the lowest numbers and are never dropped.
        directory: Directory of the tables.
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
        """Label for the progress display, with the band and the part of the hash range."""
        return f"band {self.band + 1}, part {self.part + 1} of {self.parts}"

    @property
    def table(self) -> Path:
        """Path of the table of candidate pairs. The pairs are sorted by the number of the later document."""
        return self.directory / f"candidates-{self.band:04d}-{self.part:04d}"

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write the table."""
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
        """Yield the buckets of the band, then for each further level the buckets into which large buckets are split."""
        signatures = Signatures(self.directory, self.partitions)
        hashes, documents = self._members(signatures)
        for depth in range(_NUM_LEVELS):
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
        """Return the hashes and numbers of the documents that share a bucket, sorted by hash, then by number."""
        # Hash 0 marks documents without shingles.
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
    """The buckets of one level. Documents are sorted by bucket, and documents in one bucket by document number.

    Attributes:
        documents: Document numbers.
        starts: For each document, the index in `documents` at which its bucket starts.
        sizes: For each document, the number of documents in its bucket.
        order: Indices that sort `documents` in ascending order.
    """

    documents: U64
    starts: I64
    sizes: I64
    order: I64

    @classmethod
    def of(cls, hashes: U64, documents: U64) -> Self:
        """Group documents into buckets. The documents must be sorted by hash, then by document number."""
        starts = np.flatnonzero(group_starts(hashes))
        sizes = np.diff(starts, append=len(hashes))
        order = np.argsort(documents, kind="stable")
        return cls(documents, np.repeat(starts, sizes), np.repeat(sizes, sizes), order)

    def pairs(self, low: int, high: int) -> tuple[U64, U64]:
        """Return the candidate pairs (later, earlier) whose later document has a number in [low, high)."""
        by_number = self.documents[self.order]
        chosen = self.order[slice(*np.searchsorted(by_number, np.array([low, high], np.uint64)).tolist())]
        counts = np.minimum(chosen - self.starts[chosen], COMPARED)
        return np.repeat(self.documents[chosen], counts), self.documents[spans(self.starts[chosen], counts)]


def _shared(hashes: U64, documents: U64) -> tuple[U64, U64]:
    """Return the documents whose hash occurs at least twice. The hashes must be in ascending order."""
    first = group_starts(hashes)
    shared = ~(first & np.append(first[1:], True))
    return hashes[shared], documents[shared]


@dataclass(frozen=True, slots=True)
class CompareTask:
    """A task that computes the similarity of candidate pairs and writes the pairs with at least the threshold.

    The task processes the candidate pairs whose later document has a number in [low, high).
    """

    partitions: tuple[Partition, ...]
    candidates: tuple[Path, ...]
    low: int
    high: int
    threshold: float
    directory: Path

    @property
    def label(self) -> str:
        """Label for the progress display, with the range of document numbers."""
        return f"documents {self.low:,} to {self.high:,}"

    @property
    def table(self) -> Path:
        """Path of the table of similar pairs, sorted by the later document, then by the earlier document."""
        return self.directory / f"similar-{self.low:014d}"

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.table.is_dir()

    def run(self) -> None:
        """Write the table."""
        write_columns(self.table, self._similar(), ("later", "earlier", "jaccard"))

    def _similar(self) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        signatures = Signatures(self.directory, self.partitions)
        later, earlier = self._pairs()
        involved = np.unique(np.concatenate([later, earlier]))
        sizes = signatures.sizes(involved)
        of_later, of_earlier = (sizes[np.searchsorted(involved, side)] for side in (later, earlier))
        # The size of the smaller set divided by the size of the larger set is an upper bound of the similarity.
        possible = np.minimum(of_later, of_earlier) >= self.threshold * np.maximum(of_later, of_earlier)
        later, earlier, costs = later[possible], earlier[possible], (of_later + of_earlier)[possible]
        for chunk in _chunks(costs):
            pair = later[chunk], earlier[chunk]
            similarity = jaccard(*(_sets_of(signatures, side) for side in pair))
            near = similarity >= self.threshold
            yield {"later": pair[0][near], "earlier": pair[1][near], "jaccard": similarity[near]}

    def _pairs(self) -> tuple[U64, U64]:
        """Return the candidate pairs of all bands without repetition."""
        bits, mask = np.uint64(_NUMBER_BITS), np.uint64((1 << _NUMBER_BITS) - 1)
        keys = [np.empty(0, np.uint64)]
        for table in self.candidates:
            later = read_column(table, "later")
            start, stop = np.searchsorted(later, np.array([self.low, self.high], np.uint64))
            place = later[start:stop] - np.uint64(self.low)
            keys.append((place << bits) | read_column(table, "earlier")[start:stop])
        pairs = np.unique(np.concatenate(keys))
        return (pairs >> bits) + np.uint64(self.low), pairs & mask


def _chunks(costs: I64) -> Iterator[slice]:
    """Yield slices of pairs that have about `_CHUNK_SHINGLES` shingles. `costs` has the number for each pair."""
    done = np.cumsum(costs)
    start = 0
    while start < len(done):
        before = int(done[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(done, before + _CHUNK_SHINGLES, side="right")))
        yield slice(start, stop)
        start = stop


def _sets_of(signatures: Signatures, documents: U64) -> tuple[npt.NDArray[np.uint32], I64]:
    """Return the concatenated shingle sets and their offsets. Documents may be unsorted and may occur repeatedly."""
    unique, place = np.unique(documents, return_inverse=True)
    values, offsets = signatures.sets(unique)
    sizes = np.diff(offsets)[place]
    return values[spans(offsets[place], sizes)], np.concatenate([[0], np.cumsum(sizes)])
