"""The ledger of a corpus: for every document that was dropped, where it came from, at which step, and why.

It is what lets `groundup corpus explain` answer for any document, and it is written beside the shards as
`ledger/*.parquet`, each file by the task that dropped them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.corpus.steps import Drop
from groundup.files import atomic_file
from groundup.types import Document

if TYPE_CHECKING:
    import pyarrow as pa

LEDGER = "ledger"
_BATCH = 4096
_JOINED = 1024  # ledgers of tasks in one file
BEGINNING = 300  # characters of a dropped text that are kept


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one document, or of a file that gave none.

    Attributes:
        id: of the text as it was when it was dropped; "" where there was none.
        step: the name of the step that dropped it.
        reason: as it is counted in the data card.
        detail: what was measured, and the bound.
        kept: the id of the document that stays in its place: for copies and near copies.
        bytes: of UTF-8 text.
        beginning: the first characters.
    """

    source: str
    origin: str
    step: str
    reason: str
    detail: str = ""
    id: str = ""
    url: str = ""
    kept: str = ""
    bytes: int = 0
    beginning: str = ""


def fate_of(document: Document, step: str, why: Drop, kept: str = "", shown: str | None = None) -> Fate:
    """What the ledger says of a document that is dropped.

    Args:
        kept: the id of the one that stays in its place.
        shown: its beginning, where that is not to be seen as it is.
    """
    return Fate(
        source=document.source,
        origin=document.origin,
        step=step,
        reason=why.reason,
        detail=why.detail,
        id=document.id,
        url=document.url,
        kept=kept,
        bytes=len(document.text.encode()),
        beginning=beginning(document.text) if shown is None else shown,
    )


class LedgerWriter:
    """Appends fates to an open Parquet file."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(path, _schema(), compression="zstd")
        self._rows: list[Fate] = []

    def add(self, fate: Fate) -> None:
        """Append one."""
        self._rows.append(fate)
        if len(self._rows) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {column.name: [_stored(getattr(row, column.name)) for row in self._rows] for column in fields(Fate)}
        self._writer.write_table(pa.table(columns, schema=_schema()))
        self._rows = []

    def close(self) -> None:
        """Write what is pending and the footer."""
        self._flush()
        self._writer.close()


@contextmanager
def ledger_file(path: Path) -> Iterator[LedgerWriter]:
    """A ledger that is whole or absent."""
    with atomic_file(path) as temporary:
        writer = LedgerWriter(temporary)
        yield writer
        writer.close()


def join_ledgers(parts: Sequence[Path], directory: Path) -> list[Path]:
    """Put many small ledgers, in their order, into few; returns those."""
    import pyarrow.parquet as pq

    directory.mkdir(parents=True, exist_ok=True)
    joined: list[Path] = []
    remaining = iter(parts)
    while group := list(islice(remaining, _JOINED)):
        joined.append(directory / f"{len(joined):05d}.parquet")
        with atomic_file(joined[-1]) as temporary, pq.ParquetWriter(temporary, _schema(), compression="zstd") as writer:
            for part in group:
                with pq.ParquetFile(part) as file:
                    for batch in file.iter_batches():
                        writer.write_batch(batch)
    return joined


def _stored(value: str | int) -> str | int:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value  # rejects may be no Unicode


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(f.name, pa.int64() if f.name == "bytes" else pa.string()) for f in fields(Fate)])


def beginning(text: str) -> str:
    """The part of a dropped text that the ledger keeps."""
    return text[:BEGINNING]


def read_ledger(corpus: Path) -> Iterator[Fate]:
    """Every fate that is written down in a corpus; none where it was made by a release that kept no ledger."""
    for path in sorted((corpus / LEDGER).glob("*.parquet")):
        yield from read_fates(path)


def read_fates(path: Path) -> Iterator[Fate]:
    """The fates in one file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            yield from (Fate(**row) for row in batch.to_pylist())
