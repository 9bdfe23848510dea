"""The ledger of a corpus: for every document that was dropped, where it came from, at which step, and why.

It is what lets `groundup corpus explain` answer for any document, and it is written beside the shards as
`ledger/*.parquet`, each file by the task that dropped them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup.core.types import Document
from groundup.corpus.rows import RowWriter, read_rows
from groundup.corpus.steps import Drop

LEDGER = "ledger"
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


LedgerWriter = RowWriter[Fate]


def beginning(text: str) -> str:
    """The part of a dropped text that the ledger keeps."""
    return text[:BEGINNING]


def read_ledger(corpus: Path) -> Iterator[Fate]:
    """Every fate that is written down in a corpus; none where it was made by a release that kept no ledger."""
    return read_rows(sorted((corpus / LEDGER).glob("*.parquet")), Fate)
