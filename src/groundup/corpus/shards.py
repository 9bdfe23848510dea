"""Documents in Parquet: sorted runs between the steps, the corpus's shards, the reader of later stages."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.errors import DataError, FormatError
from groundup.files import atomic_file
from groundup.types import Document, Split

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# pyarrow is imported inside the functions: the command line imports this room for every --help.

COLUMNS = ("text", "id", "source", "origin")
_ROW_GROUP_BYTES = 1 << 20  # small, so that merging many runs holds little of each in memory


class ShardWriter:
    """Writes documents to one zstd Parquet file; the bytes depend on the documents only."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._schema = pa.schema([(name, pa.string()) for name in COLUMNS])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", compression_level=3)
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
        if self._pending_bytes >= _ROW_GROUP_BYTES:
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
    """Write a run: documents sorted by id, in one file that is whole or absent."""
    with atomic_file(path) as temporary:
        writer = ShardWriter(temporary)
        for document in sorted(documents, key=attrgetter("id")):
            writer.add(document)
        writer.close()


def merge_runs(runs: Sequence[Path], low: str, high: str) -> Iterator[list[Document]]:
    """Merge sorted runs: for each id in [low, high), in order, the documents that have it: copies of a text.

    Copies come in the order of the runs. Only a row group of each run is in memory at a time.
    """
    merged = heapq.merge(*(_read_range(run, low, high) for run in runs), key=attrgetter("id"))
    for _, copies in groupby(merged, key=attrgetter("id")):
        yield list(copies)


def ids_in(runs: Sequence[Path], low: str, high: str) -> Iterator[str]:
    """The ids in [low, high) of all runs, in no order, with repeats."""
    for run in runs:
        yield from (d.id for d in _read_range(run, low, high, columns=("id",)))


def _read_range(run: Path, low: str, high: str, columns: Sequence[str] = COLUMNS) -> Iterator[Document]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(run) as file:
        column = file.schema_arrow.get_field_index("id")
        for group in range(file.num_row_groups):
            ids = file.metadata.row_group(group).column(column).statistics
            if ids is not None and (ids.max < low or ids.min >= high):
                continue
            yield from (d for d in _documents(file, group, columns) if low <= d.id < high)


def _documents(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[Document]:
    table = file.read_row_group(group, columns=list(columns))
    rows = zip(
        *(table.column(name).to_pylist() if name in columns else [""] * len(table) for name in COLUMNS),
        strict=True,
    )
    for text, id_, source, origin in rows:
        yield Document(text=text, id=id_, source=source, origin=origin)


def shard_paths(directory: Path, split: Split) -> list[Path]:
    """The shards of one split of a corpus, in order."""
    return sorted(directory.glob(f"{split}-*.parquet"))


def read_documents(directory: Path, split: Split) -> Iterator[Document]:
    """Stream the documents of one split of a corpus, in its fixed order (by document hash).

    Raises:
        DataError: the directory holds no shards of this split.
        FormatError: a shard is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = shard_paths(directory, split)
    if not paths:
        raise DataError(
            f"{directory}: no {split} shards",
            rule="a corpus directory holds train-*.parquet and validation-*.parquet",
            fix="Give the directory that `groundup collect` wrote, or run that again until it is done.",
        )
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield from _documents(file, group, COLUMNS)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise FormatError(
                f"{path}: {error}",
                rule="a shard is a whole Parquet file with the columns " + ", ".join(COLUMNS),
                fix="Delete the corpus directory and run `groundup collect` again.",
            ) from error
