"""The drop log of a corpus: the origin, step and reason of every dropped document.

Tasks write the drop log next to the shards, as `drop_log/*.parquet`. `groundup corpus explain` reads the drop log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup.core.types import Document
from groundup.corpus.rows import RowWriter, read_rows
from groundup.corpus.steps import Drop

DROP_LOG = "drop_log"
BEGINNING = 300  # number of characters of a dropped text to store in the log


@dataclass(frozen=True, slots=True)
class DropRecord:
    """A dropped document, or a file that contains no text.

    Attributes:
        id: ID of the text when it was dropped, or "" if a file contains no text.
        step: Name of the step that dropped it.
        reason: Reason of the drop. The data card counts dropped documents by reason.
        detail: Measured value and its limit.
        kept: ID of the document that is kept instead of a duplicate or near-duplicate, otherwise "".
        bytes: Size of the text in UTF-8.
        beginning: First characters of the dropped text.
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
        why: Reason and detail of the drop.
        kept: ID of the document that is kept instead.
        shown: Beginning of the text, in which values are masked. The default is the unmasked beginning of the text.
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
    """Return the first characters of a dropped text, which the drop log stores."""
    return text[:BEGINNING]


def read_drop_log(corpus: Path) -> Iterator[DropRecord]:
    """Yield the drop log records of a corpus."""
    return read_rows(sorted((corpus / DROP_LOG).glob("*.parquet")), DropRecord)
