"""Documents in Parquet: sorted runs between the steps, the corpus's shards, the reader of later stages."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.errors import DataError, FormatError
from groundup.core.files import atomic_file
from groundup.core.types import Document, Split

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# pyarrow is imported inside the functions: the command line imports this room for every --help.

END = "g"  # beyond every id, which are hex digits
COLUMNS = ("text", "id", "source", "origin", "url", "date", "language", "language_score")
_RUN_ROW_GROUP_BYTES = 1 << 17  # small: merging holds one of each run, and reads all that meet its range of ids
_ROW_GROUP_BYTES = 1 << 20
_COMPRESSION_LEVEL = 3
_RUN_COMPRESSION_LEVEL = 1  # read once or twice and thrown away


class ShardWriter:
    """Writes documents to one zstd Parquet file; the bytes depend on the documents only."""

    def __init__(
        self, path: Path, *, row_group_bytes: int = _ROW_GROUP_BYTES, compression_level: int = _COMPRESSION_LEVEL
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {"language_score": pa.float32()}
        self._schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", compression_level=compression_level)
        self._row_group_bytes = row_group_bytes
        self._rows: list[Document] = []
        self._pending_bytes = 0
        self.documents = 0
        self.bytes = 0

    def add(self, document: Document) -> None:
        """Append a document."""
        size = len(document.text.encode())
        self._rows.append(document)
        self._pending_bytes += size
        self.documents += 1
        self.bytes += size
        if self._pending_bytes >= self._row_group_bytes:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {name: [getattr(row, name) for row in self._rows] for name in COLUMNS}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows, self._pending_bytes = [], 0

    def close(self) -> None:
        """Write what is pending and the footer."""
        if self._rows:
            self._flush()
        self._writer.close()


def write_run(path: Path, documents: Iterable[Document]) -> None:
    """Write a run: documents that come sorted by id, in one file that is whole or absent."""
    with atomic_file(path) as temporary:
        writer = ShardWriter(temporary, row_group_bytes=_RUN_ROW_GROUP_BYTES, compression_level=_RUN_COMPRESSION_LEVEL)
        for document in documents:
            writer.add(document)
        writer.close()


def merge_runs(runs: Sequence[Path], low: str = "", high: str = END) -> Iterator[Document]:
    """Merge sorted runs: the documents with an id in [low, high), by id; copies of one text in the order of the runs.

    Only a row group of each run is in memory at a time.
    """
    return heapq.merge(*(read_range(run, low, high) for run in runs), key=attrgetter("id"))


def read_range(run: Path, low: str = "", high: str = END) -> Iterator[Document]:
    """The documents of one run, or of one shard, with an id in [low, high)."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(run) as file:
        for group in _groups(file, low, high):
            yield from (d for d in _documents(file, group) if low <= d.id < high)


def read_ids(run: Path, low: str, high: str) -> Iterator[str]:
    """The ids in [low, high) of one run."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(run) as file:
        for group in _groups(file, low, high):
            ids = file.read_row_group(group, columns=["id"]).column("id").to_pylist()
            yield from (each for each in ids if low <= each < high)


def _groups(file: pq.ParquetFile, low: str, high: str) -> Iterator[int]:
    column = file.schema_arrow.get_field_index("id")
    for group in range(file.num_row_groups):
        ids = file.metadata.row_group(group).column(column).statistics
        if ids is None or (ids.max >= low and ids.min < high):
            yield group


def _documents(file: pq.ParquetFile, group: int) -> Iterator[Document]:
    table = file.read_row_group(group)
    # A corpus of an earlier release has fewer columns.
    there = [name for name in COLUMNS if name in table.column_names]
    for row in zip(*(table.column(name).to_pylist() for name in there), strict=True):
        yield Document(**dict(zip(there, row, strict=True)))


def shard_paths(directory: Path, split: Split) -> list[Path]:
    """The shards of one split of a corpus, in order."""
    return sorted(directory.glob(f"{split}-*.parquet"))


def required_shards(directory: Path, split: Split) -> list[Path]:
    """The shards of one split of a corpus, in order.

    Raises:
        DataError: there are none.
    """
    if paths := shard_paths(directory, split):
        return paths
    raise DataError(
        f"{directory}: no {split} shards",
        rule="a corpus directory holds train-*.parquet and validation-*.parquet",
        fix="Give the directory that `groundup collect` wrote, or run that again until it is done.",
    )


@contextmanager
def naming_damaged_shard(path: Path) -> Iterator[None]:
    """Name the shard that turns out to be damaged inside the block (`FormatError`)."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, TypeError) as error:
        raise FormatError(
            f"{path}: {error}",
            rule="a shard is a whole Parquet file with the columns " + ", ".join(COLUMNS[:4]),
            fix="Delete the corpus directory and run `groundup collect` again.",
        ) from error


def read_documents(directory: Path, split: Split) -> Iterator[Document]:
    """Stream the documents of one split of a corpus, in its fixed order (by document hash).

    Raises:
        DataError: the directory holds no shards of this split.
        FormatError: a shard is damaged.
    """
    for path in required_shards(directory, split):
        with naming_damaged_shard(path):
            yield from read_range(path)


def first_bytes(texts: Iterator[str], limit: int, progress: Callable[[int], None] = lambda _: None) -> Iterator[str]:
    """Yield the first texts of a corpus until they have `limit` bytes.

    A corpus is in the order of its documents' hashes, so its beginning is a random sample.

    Args:
        progress: called with the bytes of each text.
    """
    taken = 0
    while taken < limit and (text := next(texts, None)) is not None:
        yield text
        size = len(text.encode())
        taken += size
        progress(size)
