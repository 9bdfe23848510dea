"""Looking into a finished corpus: what became of a document, and where a string came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.corpus.drop_log import DropRecord, beginning, read_drop_log
from groundup.corpus.shards import COLUMNS, naming_damaged_shard, required_shards, shard_paths

if TYPE_CHECKING:
    import pyarrow as pa

_AROUND = 60  # characters shown on each side of what was searched


@dataclass(frozen=True, slots=True)
class Kept:
    """A document that is in the corpus.

    Attributes:
        shard: the file that holds it, in `row`, counted from 0.
        copies: how often it is there, in a row, where a mixture repeats it.
        beginning: its first characters.
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
    """A place where a string occurs: the document, and the text around it.

    Attributes:
        at: where it begins, in characters of the document.
        around: what is before it, itself, and what comes after it.
    """

    document: Kept
    at: int
    around: tuple[str, str, str]


def find_documents(corpus: Path, named: str) -> Iterator[Kept | DropRecord]:
    """What became of the documents with this id, or with this in their origin or URL: first those that are kept.

    Of one that is kept, its copies and near-copies come with it.

    Raises:
        DataError: no corpus there.
        FormatError: a shard is damaged.
    """
    import pyarrow.compute as pc

    def chosen(table: pa.Table) -> pa.Array:
        mask = pc.equal(table["id"], named)
        for column in ("origin", "url"):
            if column in table.column_names:
                mask = pc.or_(mask, pc.match_substring(table[column], named))
        return mask

    yield from (kept for kept, _ in _kept(corpus, chosen))
    for fate in read_drop_log(corpus):
        if named in (fate.id, fate.kept) or named in fate.origin or named in fate.url:
            yield fate


def occurrences(corpus: Path, text: str, *, ignore_case: bool = False) -> Iterator[Match]:
    """The documents of a corpus that have this text, each with the first place where it is.

    Raises:
        DataError: no corpus there.
        FormatError: a shard is damaged.
    """
    import pyarrow.compute as pc

    for kept, whole in _kept(corpus, lambda table: pc.match_substring(table["text"], text, ignore_case=ignore_case)):
        at = whole.lower().find(text.lower()) if ignore_case else whole.find(text)
        end = at + len(text)
        yield Match(kept, at, (whole[max(0, at - _AROUND) : at], whole[at:end], whole[end : end + _AROUND]))


def _kept(corpus: Path, chosen: Any) -> Iterator[tuple[Kept, str]]:
    """The documents that `chosen` (of a table of them, a mask) picks, with their text; copies in a row come once."""
    import pyarrow.parquet as pq

    for path in [*required_shards(corpus, "train"), *shard_paths(corpus, "validation")]:
        pending: tuple[Kept, str] | None = None
        with naming_damaged_shard(path), pq.ParquetFile(path) as file:
            start = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                mask = chosen(table)
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
