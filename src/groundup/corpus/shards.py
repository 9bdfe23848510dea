"""Reading and writing of documents in Parquet files.

The Parquet files are the sorted runs that tasks exchange, and the shards of the finished corpus.
"""

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

# pyarrow is imported inside the functions, because every command imports this package, even for --help.

END = "g"  # sorts after every document ID, because IDs consist of hexadecimal digits
COLUMNS = ("text", "id", "source", "origin", "url", "date", "language", "language_score")
_RUN_ROW_GROUP_BYTES = 1 << 17  # small, because a merge keeps one row group of each run in memory
_ROW_GROUP_BYTES = 1 << 20
_COMPRESSION_LEVEL = 3
_RUN_COMPRESSION_LEVEL = 1  # low, because runs are read once or twice and then deleted


class ShardWriter:
    """A writer of documents to a Parquet file with Zstandard compression.

    If the same documents are written again, the new file is identical to the old file.
    """

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
        """Write the buffered documents and the Parquet footer, and close the file."""
        if self._rows:
            self._flush()
        self._writer.close()


def write_run(path: Path, documents: Iterable[Document]) -> None:
    """Write documents, which must be sorted by ID, to a run. The file is created atomically."""
    with atomic_file(path) as temporary:
        writer = ShardWriter(temporary, row_group_bytes=_RUN_ROW_GROUP_BYTES, compression_level=_RUN_COMPRESSION_LEVEL)
        for document in documents:
            writer.add(document)
        writer.close()


def merge_runs(runs: Sequence[Path], low: str = "", high: str = END) -> Iterator[Document]:
    """Merge sorted runs and yield the documents whose ID is in [low, high), sorted by ID.

    Documents with the same ID are yielded in the order of the runs. Only one row group of each run is kept in memory.
    """
    return heapq.merge(*(read_range(run, low, high) for run in runs), key=attrgetter("id"))


def read_range(run: Path, low: str = "", high: str = END) -> Iterator[Document]:
    """Yield the documents of a run or shard whose ID is in [low, high)."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(run) as file:
        for group in _groups(file, low, high):
            yield from (d for d in _documents(file, group) if low <= d.id < high)


def read_ids(run: Path, low: str, high: str) -> Iterator[str]:
    """Yield the document IDs of a run or shard that are in [low, high)."""
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
    for row in zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True):
        yield Document(**dict(zip(COLUMNS, row, strict=True)))


def shard_paths(directory: Path, split: Split) -> list[Path]:
    """Return the shards of one split of a corpus, in order.

    Args:
        directory: Directory of the corpus.
        split: "train" or "validation".

    Returns:
        Paths of the shards. The list is empty if the split has no shards.
    """
    return sorted(directory.glob(f"{split}-*.parquet"))


def required_shards(directory: Path, split: Split) -> list[Path]:
    """Return the paths of the shards of one split of a corpus, in order.

    Raises:
        DataError: The split has no shards.
    """
    if paths := shard_paths(directory, split):
        return paths
    raise DataError(
        f"{directory}: no {split} shards",
        rule="the directory does not contain a finished corpus",
        fix="Give the directory that `groundup collect` wrote, or run `groundup collect` again to finish it.",
    )


@contextmanager
def naming_damaged_shard(path: Path) -> Iterator[None]:
    """Return a context manager that converts Parquet errors to a `FormatError` with the path of the shard."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, TypeError) as error:
        raise FormatError(
            f"{path}: {error}",
            rule="a shard is a Parquet file with the columns " + ", ".join(COLUMNS[:4]),
            fix="Delete the corpus directory and run `groundup collect` again.",
        ) from error


def read_documents(directory: Path, split: Split) -> Iterator[Document]:
    """Yield the documents of one split of a corpus, sorted by document ID.

    Args:
        directory: Directory of the corpus.
        split: "train" or "validation".

    Raises:
        DataError: The split has no shards.
        FormatError: A shard is damaged.
    """
    for path in required_shards(directory, split):
        with naming_damaged_shard(path):
            yield from read_range(path)


def first_bytes(texts: Iterator[str], limit: int, progress: Callable[[int], None] = lambda _: None) -> Iterator[str]:
    """Yield the first texts of a corpus, up to about `limit` bytes.

    A corpus is sorted by document ID, which is a hash of the text, so the first texts are a random sample.

    Args:
        texts: The texts in the order of the corpus.
        limit: Maximum number of bytes. The last text may exceed this limit.
        progress: Function that is called with the number of bytes of each text.
    """
    taken = 0
    while taken < limit and (text := next(texts, None)) is not None:
        yield text
        size = len(text.encode())
        taken += size
        progress(size)
