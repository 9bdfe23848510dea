"""The last tasks of the pipeline, which merge runs into shards. Each shard covers a range of document hashes."""

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

# The first 64 bits of a document ID select the shard. The last 64 bits select the split (training or validation).
_HASH_SPACE = 1 << 64
FAN_IN = 64  # maximum number of runs in one merge, because a merge keeps one row group of each run in memory

DUPLICATES = "duplicates"


class Duplicates(Protocol):
    """The interface to the duplicates of a corpus. An implementation must be picklable for worker processes."""

    def within(self, low: str, high: str) -> Mapping[str, Removal]:
        """Return the documents to remove whose ID is in [low, high), keyed by ID."""
        ...

    def without_repeats(self, document: Document) -> Document:
        """Return the document without the passages that also occur in an earlier document."""
        ...


@dataclass(frozen=True, slots=True)
class ConsolidateTask:
    """A task that merges several runs into one run.

    Consolidation limits the number of runs that later tasks merge, and therefore the memory of these tasks.
    """

    runs: tuple[Path, ...]
    output: Path

    @property
    def label(self) -> str:
        """Label for the progress display, with the file name of the merged run."""
        return self.output.name

    @property
    def marker(self) -> Path:
        """Path of the marker, which the task writes after all other files."""
        return self.output.with_suffix(".json")

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the run, then the marker."""
        write_run(self.output, merge_runs(self.runs))
        write_marker(self.marker, [self.output], removes_inputs=True)


def consolidations(runs: Sequence[Path], prefix: Path) -> list[ConsolidateTask]:
    """Return tasks that each merge `FAN_IN` consecutive runs. The output paths of the tasks begin with `prefix`."""
    remaining = iter(runs)
    groups = iter(lambda: tuple(islice(remaining, FAN_IN)), ())
    return [
        ConsolidateTask(group, prefix.with_name(f"{prefix.name}-{number:06d}.parquet"))
        for number, group in enumerate(groups)
    ]


@dataclass(frozen=True, slots=True)
class MergeTask:
    """A task that writes the training shard and the validation shard of one range of document hashes.

    Attributes:
        runs: Paths of the runs of this corpus, in the order of the sources. Of several duplicates, the document in the
            earliest run is kept.
        number: Index of the range, from 0.
        shards: Number of ranges.
        validation_fraction: Fraction of documents in the validation set.
        min_document_bytes: Minimum size of a document in bytes. Documents that are smaller after the removal of
            repeated passages are dropped.
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
        """Label for the progress display, with the number of the shard."""
        return f"shard {self.number + 1} of {self.shards}"

    @property
    def marker(self) -> Path:
        """Path of the marker with the document counts, which the task writes after all other files."""
        return self.directory / f"merge-{self.number:05d}.json"

    @property
    def drop_log(self) -> Path:
        """Path of the drop log of this task."""
        return self.directory / f"merge-{self.number:05d}.parquet"

    def done(self) -> bool:
        """Return whether the task is finished."""
        return self.marker.is_file()

    def run(self) -> None:
        """Write the training and the validation shard, then the marker."""
        low, high = self._bound(self.number), self._bound(self.number + 1)
        removals = self.duplicates.within(low, high)
        # At least one document of each range is assigned to the validation set, so that any corpus can be evaluated.
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
    """A task that writes a training shard in which each document is repeated by the number of epochs of its source.

    Attributes:
        merged: Path of the shard in which each document occurs once.
        output: Path of the new shard.
        epochs: Number of epochs of each source. For example, if a source has 2.25 epochs, three quarters of its
            documents are written twice, and one quarter, selected by hash, is written three times.
    """

    merged: Path
    output: Path
    epochs: Mapping[str, float]

    @property
    def label(self) -> str:
        """Label for the progress display, with the file name of the new shard."""
        return self.output.name

    @property
    def marker(self) -> Path:
        """Path of the marker with the document counts, which the task writes after all other files."""
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
    """Return how many times a document is written if its source has `epochs` epochs."""
    whole = int(epochs)
    # The bits 32 to 63 of the ID are used here, because they do not determine the split and hardly influence the shard.
    return whole + (int(document_id[8:16], 16) < (epochs - whole) * (1 << 32))
