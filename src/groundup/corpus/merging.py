"""The last tasks of the pipeline: merge runs into shards. Each shard is a range of document hashes."""

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

FAN_IN = 64  # maximum runs per merge, since each holds a row group in memory
_HASH_SPACE = 1 << 64  # the first 64 bits of a document's ID choose the shard, the last 64 the split

DUPLICATES = "duplicates"


class Duplicates(Protocol):
    """The duplicates of a corpus. Worker processes receive it pickled."""

    def within(self, low: str, high: str) -> Mapping[str, Removal]:
        """Return the removals of documents with an ID in [low, high)."""
        ...

    def without_repeats(self, document: Document) -> Document:
        """Remove the passages that also occur in an earlier document."""
        ...


@dataclass(frozen=True, slots=True)
class ConsolidateTask:
    """Merge runs into one run. This bounds the number of runs, and so the memory of later tasks."""

    runs: tuple[Path, ...]
    output: Path

    @property
    def label(self) -> str:
        """The name of the run."""
        return self.output.name

    @property
    def marker(self) -> Path:
        """The marker file, written last."""
        return self.output.with_suffix(".json")

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the run, then the marker."""
        write_run(self.output, merge_runs(self.runs))
        write_marker(self.marker, [self.output], removes_inputs=True)


def consolidations(runs: Sequence[Path], prefix: Path) -> list[ConsolidateTask]:
    """Return the tasks that merge groups of `FAN_IN` runs, in order; their output paths begin with `prefix`."""
    remaining = iter(runs)
    groups = iter(lambda: tuple(islice(remaining, FAN_IN)), ())
    return [
        ConsolidateTask(group, prefix.with_name(f"{prefix.name}-{number:06d}.parquet"))
        for number, group in enumerate(groups)
    ]


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Write the shards of one range of document hashes.

    Attributes:
        runs: The runs of this corpus, in the order of its sources. The first of several duplicates is kept.
        number: Number of the range.
        shards: Number of ranges.
        validation_fraction: Fraction of documents in the validation set.
        min_document_bytes: Documents that are shorter after the removal of repeated passages are dropped.
        duplicates: The duplicates to remove.
        directory: Directory of the marker and the drop log.
        train: Path of the training shard.
        validation: Path of the validation shard.
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
        """The number of the shard."""
        return f"shard {self.number + 1} of {self.shards}"

    @property
    def marker(self) -> Path:
        """The marker file with the counts, written last."""
        return self.directory / f"merge-{self.number:05d}.json"

    @property
    def drop_log(self) -> Path:
        """The drop log of this task."""
        return self.directory / f"merge-{self.number:05d}.parquet"

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the training and the validation shard, then the marker."""
        low, high = self._bound(self.number), self._bound(self.number + 1)
        removals = self.duplicates.within(low, high)
        # At least one document of each range goes to the validation set, so that any corpus can be evaluated.
        ids = (each for run in self.runs for each in read_ids(run, low, high) if each not in removals)
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
            for document in self._without_duplicates(low, high, removals, dropped, drop_log):
                split = "validation" if _validation_hash(document.id) < threshold else "train"
                writers[split].add(document)
                kept[split].setdefault(document.source, Tally()).keep(document)
            for writer in writers.values():
                writer.close()
        counts = {"dropped": _as_json(dropped)} | {split: _as_json(kept[split]) for split in kept}
        write_marker(self.marker, [self.drop_log, self.train, self.validation], counts)

    def _without_duplicates(
        self, low: str, high: str, removals: Mapping[str, Removal], dropped: dict[str, Tally], drop_log: DropLogWriter
    ) -> Iterator[Document]:
        def drop(document: Document, why: Drop, kept: str = "") -> None:
            record = drop_record(document, DUPLICATES, why, kept)
            dropped.setdefault(document.source, Tally()).drop(record)
            drop_log.add(record)

        first = ""  # ID of the previous document
        for document in merge_runs(self.runs, low, high):
            if document.id == first:
                drop(document, Drop("duplicate"), first)
                continue
            first = document.id
            if removal := removals.get(first):
                drop(document, removal.why, removal.kept)
                continue
            remaining = self.duplicates.without_repeats(document)
            if remaining.text is not document.text:
                size = len(remaining.text.encode())
                if size < self.min_document_bytes:
                    drop(document, Drop("only repeated paragraphs"))
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
    """Write the training shard of a mixture, in which documents are repeated by the epochs of their source.

    Attributes:
        merged: Path of the shard without repeats.
        output: Path of the new shard.
        epochs: Epochs of each source. For example, 2.25 epochs write each document twice, and a quarter of the
            documents, chosen by hash, three times.
    """

    merged: Path
    output: Path
    epochs: Mapping[str, float]

    @property
    def label(self) -> str:
        """The name of the shard."""
        return self.output.name

    @property
    def marker(self) -> Path:
        """The marker file with the counts, written last."""
        return self.merged.with_suffix(".json")

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the shard, then the marker."""
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
    """Return how often a document is repeated if its source has `epochs` epochs."""
    whole = int(epochs)
    # These bits of the hash do not influence the shard or the split.
    return whole + (int(document_id[8:16], 16) < (epochs - whole) * (1 << 32))
