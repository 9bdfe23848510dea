"""Reading and writing of Parquet tables whose rows are dataclasses with string and integer fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from groundup.core.files import atomic_file

if TYPE_CHECKING:
    import pyarrow as pa

Row = TypeVar("Row")

_BATCH = 4096
_TABLES_PER_FILE = 1024


class RowWriter(Generic[Row]):
    """Appends rows of one dataclass to an open Parquet file."""

    def __init__(self, path: Path, kind: type[Row]) -> None:
        import pyarrow.parquet as pq

        self._schema = _schema(kind)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Append a row."""
        self._rows.append(row)
        if len(self._rows) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {name: [_stored(getattr(row, name)) for row in self._rows] for name in self._schema.names}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        self._rows = []

    def close(self) -> None:
        """Write the buffered rows and the Parquet footer, and close the file."""
        self._flush()
        self._writer.close()


@contextmanager
def rows_file(path: Path, kind: type[Row]) -> Iterator[RowWriter[Row]]:
    """Return a context manager for a `RowWriter`. When the `with` block ends, the file is created atomically."""
    with atomic_file(path) as temporary:
        writer = RowWriter(temporary, kind)
        yield writer
        writer.close()


def join_rows(parts: Sequence[Path], directory: Path, kind: type[Any]) -> list[Path]:
    """Concatenate many small tables, in order, into a few larger files, and return the paths of the larger files."""
    import pyarrow.parquet as pq

    directory.mkdir(parents=True, exist_ok=True)
    joined: list[Path] = []
    remaining = iter(parts)
    schema = _schema(kind)
    while group := list(islice(remaining, _TABLES_PER_FILE)):
        joined.append(directory / f"{len(joined):05d}.parquet")
        with atomic_file(joined[-1]) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in group:
                with pq.ParquetFile(part) as file:
                    for batch in file.iter_batches():
                        writer.write_batch(batch)
    return joined


def read_rows(paths: Iterable[Path], kind: type[Row]) -> Iterator[Row]:
    """Yield the rows of several tables as instances of the dataclass `kind`, in order."""
    import pyarrow.parquet as pq

    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from (kind(**row) for row in batch.to_pylist())


def _stored(value: str | int) -> str | int:
    return (
        value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
    )  # The text of a dropped document may contain lone surrogates, which are not valid Unicode.


def _schema(kind: type[Any]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(f.name, pa.int64() if f.type == "int" else pa.string()) for f in fields(kind)])
