"""Search in a finished corpus: find documents by ID, origin or URL, or by a string that they contain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.corpus.drop_log import DropRecord, beginning, read_drop_log
from groundup.corpus.shards import COLUMNS, naming_damaged_shard, required_shards, shard_paths

if TYPE_CHECKING:
    import pyarrow as pa

_CONTEXT = 60  # characters shown on each side of a match


@dataclass(frozen=True, slots=True)
class Kept:
    """A document that is in the corpus, without its whole text.

    Attributes:
        shard: File name of the shard that contains the document.
        row: Row of the document in the shard, from 0.
        beginning: First characters of the text.
        copies: Number of consecutive rows that contain the document. A mixture can repeat a document in several rows.
    """

    id: str
    source: str
    origin: str
    shard: str
    row: int
    bytes: int
    beginning: str
    url: str = ""
    date: str = ""
    language: str = ""
    language_score: float = 0.0
    copies: int = 1


@dataclass(frozen=True, slots=True)
class Match:
    """A match of a search string in a document.

    Attributes:
        document: The document that contains the match.
        at: Offset of the match in the text of the document, in characters.
        around: The text before the match, the match itself, and the text after the match.
    """

    document: Kept
    at: int
    around: tuple[str, str, str]


def find_documents(corpus: Path, query: str) -> Iterator[Kept | DropRecord]:
    """Yield the documents whose ID is `query`, or whose origin or URL contains `query`.

    The documents in the corpus come first, followed by the dropped documents. If `query` is the ID of a kept document,
    the dropped duplicates and near-duplicates of this document are also found.

    Args:
        corpus: Directory of the corpus.
        query: A document ID, or part of an origin or URL.

    Raises:
        DataError: The directory does not contain a corpus.
        FormatError: A shard is damaged.
    """
    import pyarrow.compute as pc

    def matches(table: pa.Table) -> pa.Array:
        mask = pc.equal(table["id"], query)
        for column in ("origin", "url"):
            if column in table.column_names:
                mask = pc.or_(mask, pc.match_substring(table[column], query))
        return mask

    yield from (kept for kept, _ in _kept(corpus, matches))
    for record in read_drop_log(corpus):
        if query in (record.id, record.kept) or query in record.origin or query in record.url:
            yield record


def occurrences(corpus: Path, text: str, *, ignore_case: bool = False) -> Iterator[Match]:
    """Yield the documents that contain a string, each with its first match.

    Args:
        corpus: Directory of the corpus.
        text: The string.
        ignore_case: Whether to ignore the case of letters.

    Raises:
        DataError: The directory does not contain a corpus.
        FormatError: A shard is damaged.
    """
    import pyarrow.compute as pc

    for kept, whole in _kept(corpus, lambda table: pc.match_substring(table["text"], text, ignore_case=ignore_case)):
        at = whole.lower().find(text.lower()) if ignore_case else whole.find(text)
        end = at + len(text)
        yield Match(kept, at, (whole[max(0, at - _CONTEXT) : at], whole[at:end], whole[end : end + _CONTEXT]))


def _kept(corpus: Path, matches: Any) -> Iterator[tuple[Kept, str]]:
    """Yield the documents that the function `matches` selects, with their texts.

    If consecutive rows contain the same document, it is yielded once with the number of copies.
    """
    import pyarrow.parquet as pq

    for path in [*required_shards(corpus, "train"), *shard_paths(corpus, "validation")]:
        pending: tuple[Kept, str] | None = None
        with naming_damaged_shard(path), pq.ParquetFile(path) as file:
            start = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                mask = matches(table)
                rows = [row for row, picked in enumerate(mask.to_pylist()) if picked]
                for row, values in zip(rows, table.filter(mask).to_pylist(), strict=True):
                    if pending and pending[0].id == values["id"]:
                        pending = (replace(pending[0], copies=pending[0].copies + 1), pending[1])
                        continue
                    if pending:
                        yield pending
                    pending = (_as_kept(values, path.name, start + row), values["text"])
                start += len(table)
        if pending:
            yield pending


def _as_kept(values: dict[str, Any], shard: str, row: int) -> Kept:
    text = values["text"]
    about = {name: values[name] for name in COLUMNS if name != "text" and name in values}
    return Kept(shard=shard, row=row, bytes=len(text.encode()), beginning=beginning(text), **about)
