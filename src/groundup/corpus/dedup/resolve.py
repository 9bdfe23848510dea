"""The task that selects the near-duplicates to drop, in one pass over all similar pairs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from groundup.core.files import atomic_file
from groundup.corpus.dedup.columns import U64, read_column
from groundup.corpus.dedup.partitions import Partition, Signatures, id_text
from groundup.corpus.markers import write_marker

SUMMARY = "near-duplicates.json"
_NUM_CLUSTERS = 10  # maximum number of clusters in the summary
_DROPPED = 0xFFFFFFFF  # state of a dropped document; the state of a kept document is the number of its near-duplicates


@dataclass(frozen=True, slots=True)
class ResolveTask:
    """A task that drops each document that is similar to an earlier document that is kept.

    Each dropped document refers to the first kept document that is similar to it. A document that is similar only to
    dropped documents is kept. For example, if B is similar to A, and C is similar to B but not to A, then C is kept.

    Attributes:
        partitions: All partitions.
        similar: Path of each `CompareTask` table, with the lowest document number in the range of this task.
        directory: Directory of the tables.
    """

    partitions: tuple[Partition, ...]
    similar: tuple[tuple[Path, int], ...]
    directory: Path

    @property
    def label(self) -> str:
        """Label of this task for the progress display."""
        return "choosing the near-duplicates to drop"

    def done(self) -> bool:
        """Return whether the task is finished."""
        return (self.directory / SUMMARY).is_file()

    def run(self) -> None:
        """Write tables of the dropped documents sorted by ID, then the summary."""
        documents = sum(partition.documents for partition in self.partitions)
        with TemporaryFile(dir=self.directory) as file:  # The states of all documents take 4 bytes each, on disk.
            state = np.memmap(file, "<u4", mode="w+", shape=max(1, documents))
            dropped = sum(self._resolve(table, low, state) for table, low in self.similar)
            largest = _largest(state)
        signatures = Signatures(self.directory, self.partitions)
        clusters = [
            {"kept": id_text(signatures.ids(np.array([number], np.uint64))[0]), "dropped": count}
            for number, count in largest
        ]
        known = sum(partition.documents for partition in self.partitions if partition.corpus)
        summary = {"documents": documents - known, "existing": known, "dropped": dropped, "clusters": clusters}
        dropped_tables = [_dropped(self.directory, low) for _, low in self.similar]
        write_marker(self.directory / SUMMARY, dropped_tables, summary)

    def _resolve(self, table: Path, low: int, state: np.memmap[tuple[int], np.dtype[np.uint32]]) -> int:
        """Select the documents to drop from the pairs of one table, and return their number."""
        later, earlier, similarity = (np.array(read_column(table, name)) for name in ("later", "earlier", "jaccard"))
        was_kept = state[earlier.astype(np.int64)] != _DROPPED  # whether no previous table dropped the earlier document
        dropped: dict[int, int] = {}  # The key is a dropped document, and the value is the index of its pair.
        pairs = zip(later.tolist(), earlier.tolist(), was_kept.tolist(), strict=True)
        for pair, (document, candidate, is_kept) in enumerate(pairs):
            if is_kept and document not in dropped and candidate not in dropped:
                dropped[document] = pair
        chosen = np.fromiter(dropped.values(), np.int64, len(dropped))
        state[later[chosen].astype(np.int64)] = _DROPPED
        np.add.at(state, earlier[chosen].astype(np.int64), 1)
        self._write(_dropped(self.directory, low), later[chosen], earlier[chosen], similarity[chosen].tolist())
        return len(dropped)

    def _write(self, path: Path, dropped: U64, kept: U64, similarity: list[float]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        signatures = Signatures(self.directory, self.partitions)
        kept_once, place = np.unique(kept, return_inverse=True)
        kept_ids = [id_text(each) for each in signatures.ids(kept_once)]
        starts = np.array([partition.first for partition in self.partitions], np.uint64)
        corpora = [self.partitions[at].corpus for at in np.searchsorted(starts, kept_once, side="right") - 1]
        rows = sorted(
            (id_text(id_), kept_ids[at], each, corpora[at])
            for id_, at, each in zip(signatures.ids(dropped), place.tolist(), similarity, strict=True)
        )
        names = ("id", "kept", "jaccard", "corpus")
        kinds = (pa.string(), pa.string(), pa.float64(), pa.string())
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        with atomic_file(path) as temporary:
            pq.write_table(pa.table(arrays, names), temporary, row_group_size=1 << 14)


def _largest(state: np.memmap[tuple[int], np.dtype[np.uint32]]) -> list[tuple[int, int]]:
    """Return the kept documents that have the most near-duplicates, with the number of these near-duplicates."""
    best: list[tuple[int, int]] = []
    step = 1 << 20
    for start in range(0, len(state), step):
        part = np.where(state[start : start + step] == _DROPPED, 0, state[start : start + step])
        top = np.argsort(-part.astype(np.int64), kind="stable")[:_NUM_CLUSTERS]
        best += [(start + int(at), int(part[at])) for at in top if part[at]]
        best = sorted(best, key=lambda pair: (-pair[1], pair[0]))[:_NUM_CLUSTERS]
    return best


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A document that is dropped because it is similar to a kept document.

    Attributes:
        id: ID of the dropped document.
        kept: ID of the kept document.
        jaccard: Jaccard similarity of the dropped and the kept document.
        corpus: Directory of the existing corpus that contains the kept document, or "" if it is in the new corpus.
    """

    id: str
    kept: str
    jaccard: float
    corpus: str


def _dropped(directory: Path, low: int) -> Path:
    return directory / f"dropped-{low:014d}.parquet"


def near_duplicates_among(directory: Path, first: int, documents: int) -> set[str]:
    """Return the IDs of the near-duplicates among consecutively numbered documents.

    The result can also contain near-duplicates whose numbers are outside the range of these documents.
    """
    import pyarrow.parquet as pq

    paths = sorted(directory.glob("dropped-*.parquet"))
    start = bisect_right(paths, _dropped(directory, first)) - 1
    stop = bisect_left(paths, _dropped(directory, first + documents))
    found = (pq.read_table(path, columns=["id"]).column("id").to_pylist() for path in paths[max(0, start) : stop])
    return set().union(*found)


def near_duplicates_in(directory: Path, low: str, high: str) -> Iterator[NearDuplicate]:
    """Yield the near-duplicates whose ID is in [low, high), in no particular order."""
    import pyarrow.parquet as pq

    for path in sorted(directory.glob("dropped-*.parquet")):
        table = pq.read_table(path, filters=[("id", ">=", low), ("id", "<", high)])
        yield from (NearDuplicate(**row) for row in table.to_pylist())
