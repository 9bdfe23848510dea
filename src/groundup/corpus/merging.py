"""The last steps of the pipeline: runs to shards, a range of document hashes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from groundup.core.files import atomic_file
from groundup.core.types import Document
from groundup.corpus.card import Tally
from groundup.corpus.drop_log import DropLogWriter, DropRecord, drop_record
from groundup.corpus.markers import write_marker
from groundup.corpus.rows import rows_file
from groundup.corpus.shards import END, ShardWriter, merge_runs, read_ids, read_range, write_run
from groundup.corpus.steps import Drop, Removal

FAN_IN = 64  # runs merged at a time: each holds a row group in memory
_HASH_SPACE = 1 << 64  # shards are ranges of the first 64 bits of a document's id, validation uses the last 64

DUPLICATES = "duplicates"


class Duplicates(Protocol):
    """What is there more than once, found out before the shards are written. It travels to the workers."""

    def within(self, low: str, high: str) -> Mapping[str, Removal]:
        """The documents with an id in [low, high) that are to go."""
        ...

    def without_repeats(self, document: Document) -> Document:
        """The document without the paragraphs or lines that another document, which comes first, has too."""
        ...


@dataclass(frozen=True, slots=True)
class ConsolidateTask:
    """Merge some runs into one, so that their number, and with it the memory of all that follows, is bounded."""

    runs: tuple[Path, ...]
    output: Path

    @property
    def label(self) -> str:
        """The run."""
        return self.output.name

    @property
    def marker(self) -> Path:
        """The checksum, written last."""
        return self.output.with_suffix(".json")

    def done(self) -> bool:
        """Whether the run was written, and its checksum."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the run, then its checksum."""
        write_run(self.output, merge_runs(self.runs))
        write_marker(self.marker, [self.output], removes_inputs=True)


def consolidations(runs: Sequence[Path], prefix: Path) -> list[ConsolidateTask]:
    """The tasks that make a `FAN_IN`th as many runs, in the same order; their paths begin with `prefix`."""
    remaining = iter(runs)
    groups = iter(lambda: tuple(islice(remaining, FAN_IN)), ())
    return [
        ConsolidateTask(group, prefix.with_name(f"{prefix.name}-{number:06d}.parquet"))
        for number, group in enumerate(groups)
    ]


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Make the shard of one range of document hashes.

    Attributes:
        runs: of this corpus, in the order of its sources: of copies the first one stays.
        duplicates: what is to go because it is there already, in this corpus or in another one.
        train: where the shard of text to train on goes.
        validation: where the held-out text of this range goes.
    """

    runs: tuple[Path, ...]
    number: int
    shards: int
    validation_fraction: float
    min_document_bytes: int
    duplicates: Duplicates
    directory: Path
    train: Path
    validation: Path

    @property
    def label(self) -> str:
        """The shard."""
        return f"shard {self.number + 1} of {self.shards}"

    @property
    def marker(self) -> Path:
        """The counts, written last."""
        return self.directory / f"merge-{self.number:05d}.json"

    @property
    def drop_log(self) -> Path:
        """Where its drops are written down."""
        return self.directory / f"merge-{self.number:05d}.parquet"

    def done(self) -> bool:
        """Whether the counts are there."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the train and the validation file of this shard, then the counts."""
        low, high = self._bound(self.number), self._bound(self.number + 1)
        gone = self.duplicates.within(low, high)
        # At least one document of each shard is held out, so that even the smallest corpus can be evaluated.
        ids = (each for run in self.runs for each in read_ids(run, low, high) if each not in gone)
        smallest = min(map(_validation_hash, ids), default=0)
        threshold = max(int(self.validation_fraction * _HASH_SPACE), smallest + 1)
        dropped: dict[str, Tally] = {}
        kept: dict[str, dict[str, Tally]] = {"train": {}, "validation": {}}
        with (
            rows_file(self.drop_log, DropRecord) as drop_log,
            atomic_file(self.train) as train_path,
            atomic_file(self.validation) as validation_path,
        ):
            writers = {"train": ShardWriter(train_path), "validation": ShardWriter(validation_path)}
            for document in self._without_duplicates(low, high, gone, dropped, drop_log):
                split = "validation" if _validation_hash(document.id) < threshold else "train"
                writers[split].add(document)
                kept[split].setdefault(document.source, Tally()).keep(document)
            for writer in writers.values():
                writer.close()
        counts = {"dropped": _as_json(dropped)} | {split: _as_json(kept[split]) for split in kept}
        write_marker(self.marker, [self.drop_log, self.train, self.validation], counts)

    def _without_duplicates(
        self, low: str, high: str, gone: Mapping[str, Removal], dropped: dict[str, Tally], drop_log: DropLogWriter
    ) -> Iterator[Document]:
        def drop(document: Document, why: Drop, kept: str = "") -> None:
            fate = drop_record(document, DUPLICATES, why, kept)
            dropped.setdefault(document.source, Tally()).drop(fate)
            drop_log.add(fate)

        first = ""  # the id of the copy that came first
        for document in merge_runs(self.runs, low, high):
            if document.id == first:
                drop(document, Drop("duplicate"), first)
                continue
            first = document.id
            if there := gone.get(first):
                drop(document, there.why, there.kept)
                continue
            remaining = self.duplicates.without_repeats(document)
            if remaining.text is not document.text:
                size = len(remaining.text.encode())
                if size < self.min_document_bytes:
                    drop(document, Drop("nothing but repeated paragraphs"))
                    continue
                tally = dropped.setdefault(document.source, Tally())
                tally.cut[DUPLICATES] += len(document.text.encode()) - size
            yield remaining

    def _bound(self, number: int) -> str:
        at = number * _HASH_SPACE // self.shards
        return f"{at:016x}" if at < _HASH_SPACE else END


def _as_json(tallies: dict[str, Tally]) -> dict[str, Any]:
    return {name: tallies[name].to_json() for name in sorted(tallies)}


def _validation_hash(document_id: str) -> int:
    return int(document_id[-16:], 16)


@dataclass(frozen=True, slots=True)
class RepeatTask:
    """Make the shard to train on that a mixture asks for: each document as often as its source's epochs say.

    Attributes:
        epochs: source -> how often its text is read; 2.25 is every document twice, and a quarter of them, chosen by
            hash, once more.
    """

    merged: Path
    output: Path
    epochs: Mapping[str, float]

    @property
    def label(self) -> str:
        """The shard."""
        return self.output.name

    @property
    def marker(self) -> Path:
        """The counts, written last."""
        return self.merged.with_suffix(".json")

    def done(self) -> bool:
        """Whether the counts are there."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the shard, then the counts."""
        kept: dict[str, Tally] = {}
        with atomic_file(self.output) as temporary:
            writer = ShardWriter(temporary)
            for document in read_range(self.merged):
                for _ in range(times(document.id, self.epochs[document.source])):
                    writer.add(document)
                    kept.setdefault(document.source, Tally()).keep(document)
            writer.close()
        write_marker(self.marker, [self.output], {"train": _as_json(kept)})


def times(document_id: str, epochs: float) -> int:
    """How often a document is there in a mixture that reads its source `epochs` times."""
    whole = int(epochs)
    # Other bits of the hash than those that choose shard and validation.
    return whole + (int(document_id[8:16], 16) < (epochs - whole) * (1 << 32))
