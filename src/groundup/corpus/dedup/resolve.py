"""Which of the near-copies go: one pass over all of them, in order."""

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
_LARGEST = 10  # clusters in the summary
_DROPPED = 0xFFFFFFFF  # as the state of a document; else the number of those dropped for it


@dataclass(frozen=True, slots=True)
class ResolveTask:
    """Decide, document by document in order: it goes if an earlier one that *stays* is similar enough, else it stays.

    So every drop can name what stays in its place, and a chain of small changes does not make its two ends copies of
    one another. Of several that stay, the first is named.

    Attributes:
        similar: the tables of similar pairs, each with the number of the first document that is the later one there.
    """

    partitions: tuple[Partition, ...]
    similar: tuple[tuple[Path, int], ...]
    directory: Path

    @property
    def label(self) -> str:
        """What is done."""
        return "near-duplicates: which one stays"

    def done(self) -> bool:
        """Whether the summary, written last, is there."""
        return (self.directory / SUMMARY).is_file()

    def run(self) -> None:
        """Write tables of drops, each by id, and the summary."""
        documents = sum(partition.documents for partition in self.partitions)
        with TemporaryFile(dir=self.directory) as file:  # on disk: 4 bytes a document
            state = np.memmap(file, "<u4", mode="w+", shape=max(1, documents))
            dropped = sum(self._resolve(table, low, state) for table, low in self.similar)
            largest = _largest(state)
        signatures = Signatures(self.directory, self.partitions)
        clusters = [
            {"kept": id_text(signatures.ids(np.array([number], np.uint64))[0]), "dropped": copies}
            for number, copies in largest
        ]
        known = sum(partition.documents for partition in self.partitions if partition.corpus)
        summary = {"documents": documents - known, "existing": known, "dropped": dropped, "clusters": clusters}
        dropped_tables = [_dropped(self.directory, low) for _, low in self.similar]
        write_marker(self.directory / SUMMARY, dropped_tables, summary)

    def _resolve(self, table: Path, low: int, state: np.memmap[tuple[int], np.dtype[np.uint32]]) -> int:
        """Decide on the documents of one table; the number of those that go."""
        later, earlier, similarity = (np.array(read_column(table, name)) for name in ("later", "earlier", "jaccard"))
        stays = state[earlier.astype(np.int64)] != _DROPPED  # as far as decided before this table
        gone: dict[int, int] = {}  # in this table -> the pair that decided it
        pairs = zip(later.tolist(), earlier.tolist(), stays.tolist(), strict=True)
        for pair, (document, kept, kept_stays) in enumerate(pairs):
            if kept_stays and document not in gone and kept not in gone:
                gone[document] = pair
        chosen = np.fromiter(gone.values(), np.int64, len(gone))
        state[later[chosen].astype(np.int64)] = _DROPPED
        np.add.at(state, earlier[chosen].astype(np.int64), 1)
        self._write(_dropped(self.directory, low), later[chosen], earlier[chosen], similarity[chosen].tolist())
        return len(gone)

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
    """The documents for which most others were dropped, and how many; of equals the earlier one."""
    best: list[tuple[int, int]] = []
    step = 1 << 20
    for start in range(0, len(state), step):
        part = np.where(state[start : start + step] == _DROPPED, 0, state[start : start + step])
        top = np.argsort(-part.astype(np.int64), kind="stable")[:_LARGEST]
        best += [(start + int(at), int(part[at])) for at in top if part[at]]
        best = sorted(best, key=lambda pair: (-pair[1], pair[0]))[:_LARGEST]
    return best


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A document that goes.

    Attributes:
        kept: the id of the one that stays in its place.
        jaccard: the similarity of the two.
        corpus: the existing corpus that the other is in; "" for the one in the making.
    """

    id: str
    kept: str
    jaccard: float
    corpus: str


def _dropped(directory: Path, low: int) -> Path:
    return directory / f"dropped-{low:014d}.parquet"


def near_duplicates_among(directory: Path, first: int, documents: int) -> set[str]:
    """The ids of the near-duplicates among these consecutive documents, and perhaps of some around them."""
    import pyarrow.parquet as pq

    paths = sorted(directory.glob("dropped-*.parquet"))
    start = bisect_right(paths, _dropped(directory, first)) - 1
    stop = bisect_left(paths, _dropped(directory, first + documents))
    found = (pq.read_table(path, columns=["id"]).column("id").to_pylist() for path in paths[max(0, start) : stop])
    return set().union(*found)


def near_duplicates_in(directory: Path, low: str, high: str) -> Iterator[NearDuplicate]:
    """The near-duplicates with an id in [low, high), in no order."""
    import pyarrow.parquet as pq

    for path in sorted(directory.glob("dropped-*.parquet")):
        table = pq.read_table(path, filters=[("id", ">=", low), ("id", "<", high)])
        yield from (NearDuplicate(**row) for row in table.to_pylist())
