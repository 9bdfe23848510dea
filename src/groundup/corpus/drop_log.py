"""The drop log of a corpus: the origin, step and reason of every dropped document.

Tasks write it next to the shards as `drop_log/*.parquet`. `groundup corpus explain` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup.core.types import Document
from groundup.corpus.rows import RowWriter, read_rows
from groundup.corpus.steps import Drop

DROP_LOG = "drop_log"
_OLD_DROP_LOG = "ledger"  # the directory in corpora of earlier versions
BEGINNING = 300  # characters of a dropped text in the log


@dataclass(frozen=True, slots=True)
class DropRecord:
    """A dropped document, or a file without text.

    Attributes:
        id: ID of the text when it was dropped; "" for a file without text.
        step: Name of the step that dropped it.
        reason: The reason, as counted in the data card.
        detail: The measured value and its limit.
        kept: For duplicates and near-duplicates, the ID of the document that is kept.
        bytes: Size of the text in UTF-8.
        beginning: First characters of the text.
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


def drop_record(document: Document, step: str, why: Drop, kept: str = "", shown: str | None = None) -> DropRecord:
    """Return the record of a dropped document.

    Args:
        document: The dropped document.
        step: Name of the step.
        why: The reason.
        kept: ID of the document that is kept instead.
        shown: Masked beginning of the text; default: the beginning as it is.
    """
    return DropRecord(
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


DropLogWriter = RowWriter[DropRecord]


def beginning(text: str) -> str:
    """Return the first characters of a dropped text, as logged."""
    return text[:BEGINNING]


def read_drop_log(corpus: Path) -> Iterator[DropRecord]:
    """Yield the records of a corpus; none for a corpus of a version without a drop log."""
    name = DROP_LOG if (corpus / DROP_LOG).is_dir() else _OLD_DROP_LOG
    return read_rows(sorted((corpus / name).glob("*.parquet")), DropRecord)
