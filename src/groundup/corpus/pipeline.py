"""From sources to a corpus in two steps of pure functions, each from files to files, run by the executor.

1. `ExtractTask`, one a unit of files: read, clean, split, filter; leaves runs sorted by document hash.
2. `MergeTask`, one a range of hashes: merge the runs, drop exact duplicates, hold out validation; leaves a
shard.

Both leave their counts as JSON, written last: that file is the mark of completion. Order and content depend
on the documents alone, so the result is the same whatever the number of workers and whatever was killed and
run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.corpus.card import Tally
from groundup.corpus.filters import Filter, min_length, repetition
from groundup.corpus.formats import Unreadable, extract
from groundup.corpus.settings import CorpusSettings
from groundup.corpus.shards import ShardWriter, ids_in, merge_runs, write_run
from groundup.corpus.sources import Item, SourceConfig
from groundup.corpus.text import clean_text, split_text
from groundup.files import atomic_file, read_json, write_json
from groundup.types import Document

UNIT_BYTES = 8 << 20  # a unit is at least this much, so that thousands of small files make few tasks
RUN_BYTES = 64 << 20  # text sorted in memory at a time
_HASH_SPACE = 1 << 64  # shards are ranges of the first 64 bits of a document's id, validation uses the last 64


@dataclass(frozen=True, slots=True)
class ExtractTask:
    """Read a few files of one source."""

    source: SourceConfig
    items: tuple[Item, ...]
    settings: CorpusSettings
    directory: Path
    number: int

    @property
    def label(self) -> str:
        """Source and first file."""
        return f"{self.source.label}: {self.items[0].path}"

    @property
    def size(self) -> int:
        """Stored bytes of the files."""
        return sum(item.size for item in self.items)

    @property
    def marker(self) -> Path:
        """The counts, written last."""
        return self.directory / f"extract-{self.number:06d}.json"

    def done(self) -> bool:
        """Whether the counts are there."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write sorted runs of clean documents, then the counts."""
        tally, runs = Tally(), 0
        pending: list[Document] = []
        pending_bytes = 0
        for document in self._documents(tally):
            pending.append(document)
            pending_bytes += len(document.text.encode())
            if pending_bytes >= RUN_BYTES:
                write_run(self._run_path(runs), pending)
                runs, pending, pending_bytes = runs + 1, [], 0
        if pending:
            write_run(self._run_path(runs), pending)
            runs += 1
        write_json(self.marker, {"runs": runs, "source": self.source.label, "tally": tally.to_json()})

    def runs(self) -> list[Path]:
        """The runs that a finished task left."""
        return [self._run_path(number) for number in range(read_json(self.marker)["runs"])]

    def _run_path(self, number: int) -> Path:
        return self.directory / f"run-{self.number:06d}-{number:04d}.parquet"

    def _documents(self, tally: Tally) -> Iterator[Document]:
        filters: list[Filter] = [min_length(self.settings.min_document_bytes)]
        if self.settings.repetition_filter:
            filters.append(repetition)
        source, rules = self.source, self.source.rules
        for item, opener in source.open_items(self.items):
            tally.files += 1
            for found in extract(item, opener, rules, source.format):
                if isinstance(found, Unreadable):
                    tally.drop(found.reason, found.origin, found.sample)
                    continue
                if found.field:
                    tally.take_from(found.field)
                pieces = list(split_text(clean_text(found.text), self.settings.max_document_bytes))
                for number, text in enumerate(pieces, start=1):
                    origin = f"{found.origin}/{number}" if len(pieces) > 1 else found.origin
                    document = Document(text=text, source=source.label, origin=origin)
                    reason = next((why for keep in filters if (why := keep(document))), None)
                    if reason:
                        tally.drop(reason, origin, text)
                    else:
                        tally.keep(text)
                        yield document


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Make the shard of one range of document hashes."""

    runs: tuple[Path, ...]
    number: int
    shards: int
    validation_fraction: float
    directory: Path
    output: Path

    @property
    def label(self) -> str:
        """The shard."""
        return f"shard {self.number + 1} of {self.shards}"

    @property
    def marker(self) -> Path:
        """The counts, written last."""
        return self.directory / f"merge-{self.number:05d}.json"

    def done(self) -> bool:
        """Whether the counts are there."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the train and the validation file of this shard, then the counts."""
        low, high = self._bound(self.number), self._bound(self.number + 1)
        # At least one document of each shard is held out, so that even the smallest corpus can be evaluated.
        smallest = min(map(_validation_hash, ids_in(self.runs, low, high)), default=0)
        threshold = max(int(self.validation_fraction * _HASH_SPACE), smallest + 1)
        duplicates: dict[str, Tally] = {}
        kept: dict[str, dict[str, Tally]] = {"train": {}, "validation": {}}
        with (
            atomic_file(self.output / f"train-{self.number:05d}.parquet") as train_path,
            atomic_file(self.output / f"validation-{self.number:05d}.parquet") as validation_path,
        ):
            writers = {"train": ShardWriter(train_path), "validation": ShardWriter(validation_path)}
            for first, *copies in merge_runs(self.runs, low, high):
                split = "validation" if _validation_hash(first.id) < threshold else "train"
                writers[split].add(first)
                kept[split].setdefault(first.source, Tally()).keep(first.text)
                for copy in copies:
                    duplicates.setdefault(copy.source, Tally()).drop("duplicate", copy.origin, copy.text)
            for writer in writers.values():
                writer.close()
        write_json(
            self.marker,
            {
                "duplicates": _as_json(duplicates),
                "train": _as_json(kept["train"]),
                "validation": _as_json(kept["validation"]),
            },
        )

    def _bound(self, number: int) -> str:
        at = number * _HASH_SPACE // self.shards
        return f"{at:016x}" if at < _HASH_SPACE else "g"  # beyond every hex digit


def _as_json(tallies: dict[str, Tally]) -> dict[str, Any]:
    return {name: tallies[name].to_json() for name in sorted(tallies)}


def _validation_hash(document_id: str) -> int:
    return int(document_id[-16:], 16)


def units(source: SourceConfig) -> Iterator[tuple[Item, ...]]:
    """Group a source's files, in order, into units of at least `UNIT_BYTES`."""
    unit: list[Item] = []
    size = 0
    for item in source.items():
        unit.append(item)
        size += item.size
        if size >= UNIT_BYTES:
            yield tuple(unit)
            unit, size = [], 0
    if unit:
        yield tuple(unit)
