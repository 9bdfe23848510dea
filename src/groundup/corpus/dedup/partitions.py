"""Partitions of the documents, and their MinHash signatures.

All documents are numbered in a fixed order. The documents of existing corpora have the lowest numbers, and the
documents of the runs follow in the order of the sources in the recipe. Within a run, documents are sorted by ID. Of two
near-duplicates, the document with the lower number is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from groundup.corpus.dedup.columns import I64, U32, U64, read_column, spans, write_columns
from groundup.corpus.dedup.shingles import shingles

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_PARTITIONS = 256  # There are more partitions only if the text is larger than 256 partitions of _MAX_BYTES.
_MIN_BYTES = 8 << 20  # minimum target size of a partition, in bytes of text
_MAX_BYTES = 64 << 20  # maximum target size of a partition, in bytes of text
_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Partition:
    """A range of consecutive row groups of a run or a shard.

    Attributes:
        path: Path of the Parquet file.
        groups: Index of the first row group, and index after the last row group.
        first: Document number of the first document.
        documents: Number of documents in the partition.
        bytes: Uncompressed size of the row groups in bytes, which is close to the size of the text.
        corpus: Directory of the existing corpus that contains the documents, or "" for documents of the new corpus.
    """

    path: Path
    groups: tuple[int, int]
    first: int
    documents: int
    bytes: int
    corpus: str = ""

    def batches(self, columns: Sequence[str], min_bytes: int = _BATCH_BYTES) -> Iterator[pa.Table]:
        """Yield the rows in batches, with the given columns. Each batch except the last has at least `min_bytes`."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            batch: list[int] = []
            size = 0
            for group in range(*self.groups):
                batch.append(group)
                size += file.metadata.row_group(group).total_byte_size
                if size >= min_bytes:
                    yield file.read_row_groups(batch, columns=list(columns), use_threads=False)
                    batch, size = [], 0
            if batch:
                yield file.read_row_groups(batch, columns=list(columns), use_threads=False)


def plan(runs: Sequence[tuple[Path, str]], *, small: bool = False) -> list[Partition]:
    """Split runs into partitions.

    Args:
        runs: Pairs of the path of a run or shard and the directory of the existing corpus that contains it. The
            directory is "" for the runs of the new corpus.
        small: Whether to use the minimum target size for all partitions.
    """
    import pyarrow.parquet as pq

    counts: list[I64] = []  # for each run, the number of documents and bytes of each row group, of shape [groups, 2]
    for run, _ in runs:
        metadata = pq.read_metadata(run)
        groups_of = (metadata.row_group(number) for number in range(metadata.num_row_groups))
        sizes = [(group.num_rows, group.total_byte_size) for group in groups_of]
        counts.append(np.array(sizes, np.int64).reshape(-1, 2))
    total = sum(int(groups[:, 1].sum()) for groups in counts)
    target = _MIN_BYTES if small else min(max(_MIN_BYTES, total // _MAX_PARTITIONS), _MAX_BYTES)
    partitions: list[Partition] = []
    first = 0
    for (run, corpus), groups in zip(runs, counts, strict=True):
        start = documents = pending = 0
        for number, (rows, size) in enumerate(groups.tolist(), start=1):
            documents, pending = documents + rows, pending + size
            if pending >= target or number == len(groups):
                partitions.append(Partition(run, (start, number), first, documents, pending, corpus))
                first, start, documents, pending = first + documents, number, 0, 0
    return partitions


def signature_path(directory: Path, number: int) -> Path:
    """Return the path of the table that contains the signatures of a partition."""
    return directory / f"signed-{number:06d}"


@dataclass(frozen=True, slots=True)
class SignatureTask:
    """A task that writes the ID, the band hashes and the shingle set of each document of a partition."""

    partition: Partition
    number: int
    ngram: int
    bands: int
    rows: int
    directory: Path

    @property
    def label(self) -> str:
        """Label for the progress display, with the file name and the first row group of the partition."""
        return f"{self.partition.path.name}, row groups from {self.partition.groups[0]}"

    def done(self) -> bool:
        """Return whether the task is finished."""
        return signature_path(self.directory, self.number).is_dir()

    def run(self) -> None:
        """Compute the signatures of the partition and write them to a table."""
        bands, ids, sets, lengths = [], [], [], []
        for batch in self.partition.batches(("text", "id")):
            found = shingles(batch.column("text").combine_chunks(), self.ngram)
            hashes, offsets = found.sets()
            bands.append(found.band_hashes(self.bands, self.rows))
            sets.append(hashes)
            lengths.append(np.diff(offsets))
            ids.append(id_numbers(batch.column("id").to_pylist()))
        columns: dict[str, npt.NDArray[Any]] = {
            "bands": np.concatenate(bands, axis=1),
            "ids": np.concatenate(ids),
            "shingles": np.concatenate(sets),
            "offsets": np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        }
        write_columns(signature_path(self.directory, self.number), [columns], columns)


def id_numbers(ids: Sequence[str]) -> U64:
    """Convert hexadecimal document IDs to pairs of 64-bit numbers, of shape [ids, 2]."""
    return np.frombuffer(bytes.fromhex("".join(ids)), ">u8").reshape(-1, 2)


def id_text(numbers: U64) -> str:
    """Convert a pair of 64-bit numbers to a hexadecimal document ID."""
    return f"{int(numbers[0]):016x}{int(numbers[1]):016x}"


class Signatures:
    """Access to the signatures of all partitions, which `SignatureTask` wrote.

    The argument `documents` of a method contains document numbers in ascending order.
    """

    def __init__(self, directory: Path, partitions: Sequence[Partition]) -> None:
        self.directory = directory
        self.partitions = partitions
        self._firsts = np.array([partition.first for partition in partitions], np.int64)

    def band(self, number: int) -> Iterator[tuple[int, U64]]:
        """Yield, for each partition, the number of its first document and the hashes of its documents in one band."""
        for at, partition in enumerate(self.partitions):
            yield partition.first, self._band(at, number)

    def _band(self, partition: int, number: int) -> U64:
        documents = self.partitions[partition].documents
        return self._column(partition, "bands")[number * documents : (number + 1) * documents]

    def _by_partition(self, documents: U64) -> Iterator[tuple[int, slice, I64]]:
        """Group documents by the partition that contains them.

        Yield the index of each partition that contains some of the documents, the slice of `documents` that belongs to
        this partition, and the rows of these documents in the table of the partition.
        """
        numbers = documents.astype(np.int64)
        of = np.searchsorted(self._firsts, numbers, side="right") - 1
        bounds = np.flatnonzero(np.diff(of, prepend=-1)).tolist()
        for start, stop in pairwise([*bounds, len(numbers)]):
            partition = int(of[start])
            yield partition, slice(start, stop), numbers[start:stop] - self._firsts[partition]

    def hashes(self, band: int, documents: U64) -> U64:
        """Return the hash of each document in one band."""
        hashes = np.empty(len(documents), np.uint64)
        for partition, where, rows in self._by_partition(documents):
            hashes[where] = self._band(partition, band)[rows]
        return hashes

    def ids(self, documents: U64) -> U64:
        """Return the ID of each document in the format of `id_numbers`."""
        ids = np.empty((len(documents), 2), np.uint64)
        for partition, where, rows in self._by_partition(documents):
            ids[where] = self._column(partition, "ids").reshape(-1, 2)[rows]
        return ids

    def _column(self, partition: int, name: str) -> npt.NDArray[Any]:
        return read_column(signature_path(self.directory, partition), name)

    def sets(self, documents: U64) -> tuple[U32, I64]:
        """Return the concatenated shingle sets of the documents, and the offset of each set."""
        parts, lengths = [np.empty(0, np.uint32)], [np.zeros(1, np.int64)]
        for partition, _, rows in self._by_partition(documents):
            offsets = self._column(partition, "offsets")
            starts, sizes = offsets[rows], offsets[rows + 1] - offsets[rows]
            parts.append(self._column(partition, "shingles")[spans(starts, sizes)])
            lengths.append(sizes)
        return np.concatenate(parts), np.cumsum(np.concatenate(lengths))

    def sizes(self, documents: U64) -> I64:
        """Return the number of distinct shingles of each document."""
        sizes = np.empty(len(documents), np.int64)
        for partition, where, rows in self._by_partition(documents):
            offsets = self._column(partition, "offsets")
            sizes[where] = offsets[rows + 1] - offsets[rows]
        return sizes
