"""Find near-duplicate documents and repeated passages in all runs of a corpus."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.errors import DataError
from groundup.core.types import Document
from groundup.corpus.dedup.settings import NearDuplicateSettings, RepeatedTextSettings
from groundup.corpus.executor import Task
from groundup.corpus.markers import read_marker
from groundup.corpus.shards import read_ids, shard_paths
from groundup.corpus.steps import Drop, Removal

if TYPE_CHECKING:
    from groundup.corpus.dedup.partitions import Partition

# NumPy and pyarrow are imported inside the functions, because every command imports this package, even for --help.

NEAR_DUPLICATE = "near-duplicate"
IN_ANOTHER_CORPUS = "in another corpus"
_BUCKET_DOCUMENTS = 1 << 18  # target number of documents in each part of the hash range
_MAX_PARTS = 64
_MIN_MEMBERS = 1 << 20  # minimum number of documents that a group of bucket tasks processes
_MIN_BYTES = 8 << 20  # minimum bytes of text that a group of tasks processes
_COMPARED_DOCUMENTS = 1 << 14  # minimum number of documents that a CompareTask processes
_MAX_COMPARE_TASKS = 256

Run = Callable[[str, Sequence[Task]], None]


@dataclass(frozen=True, slots=True)
class _TaskGroup:
    """A task that runs several small tasks, because starting a process takes longer than a small task."""

    tasks: tuple[Task, ...]

    @property
    def label(self) -> str:
        return self.tasks[0].label

    def done(self) -> bool:
        return all(task.done() for task in self.tasks)

    def run(self) -> None:
        for task in self.tasks:
            if not task.done():
                task.run()


def _grouped(tasks: Sequence[Task], sizes: Sequence[int], min_size: int) -> list[_TaskGroup]:
    """Group consecutive tasks so that the total size of each group, except the last, is at least `min_size`."""
    groups: list[_TaskGroup] = []
    group: list[Task] = []
    size = 0
    for number, task in enumerate(tasks, start=1):
        group.append(task)
        size += sizes[number - 1]
        if size >= min_size or number == len(tasks):
            groups.append(_TaskGroup(tuple(group)))
            group, size = [], 0
    return groups


@dataclass(frozen=True, slots=True)
class FoundDuplicates:
    """The near-duplicates and repeated passages that `find_duplicates` found.

    A `FoundDuplicates` object is pickled and sent to worker processes, which read the tables in `directory`.

    Attributes:
        runs: Paths of the corpus runs, which are Parquet files of documents sorted by ID.
        near: Settings for near-duplicates.
        repeated: Settings for repeated passages.
        directory: Directory of the tables that `find_duplicates` wrote.
        parts: Number of tables of repeated passages. Each table covers one part of the hash range.
    """

    runs: tuple[Path, ...]
    near: NearDuplicateSettings
    repeated: RepeatedTextSettings
    directory: Path
    parts: int

    def within(self, low: str, high: str) -> dict[str, Removal]:
        """Return the documents to remove whose IDs are in [low, high).

        The documents to remove are the near-duplicates, and the documents that an existing corpus also contains. The
        method keeps the removals in memory, and 16 bytes for each document of the existing corpora whose ID is in the
        range.

        Args:
            low: Lower bound of the document IDs (inclusive).
            high: Upper bound of the document IDs (exclusive).
        """
        from groundup.corpus.dedup.resolve import near_duplicates_in

        removals = {}
        for each in near_duplicates_in(self.directory, low, high):
            where = f", in {each.corpus}" if each.corpus else ""
            removals[each.id] = Removal(Drop(NEAR_DUPLICATE, f"J = {each.jaccard:.3f}{where}"), each.kept)
        for corpus in self.near.existing:
            duplicates = _common_ids(self.runs, _shards(corpus), low, high)
            removals.update({each: Removal(Drop(IN_ANOTHER_CORPUS, str(corpus)), each) for each in duplicates})
        return removals

    def without_repeats(self, document: Document) -> Document:
        """Return the document without the passages that also occur in an earlier document."""
        if self.repeated.unit == "none":
            return document
        from groundup.corpus.dedup.passages import without_repeated_passages

        return without_repeated_passages(document, self.repeated, self.directory, self.parts)

    def summary(self) -> dict[str, Any]:
        """Return the statistics of near-duplicate removal for the data card.

        Returns:
            A dictionary that is empty if near-duplicate removal is off. `documents` is the number of documents that
            were compared, `existing` is the number of documents in existing corpora, and `dropped` is the number of
            dropped documents. `clusters` lists the largest clusters of near-duplicates. Each cluster consists of the ID
            of the `kept` document and the number of its near-duplicates that were `dropped`.
        """
        from groundup.corpus.dedup.resolve import SUMMARY

        path = self.directory / SUMMARY
        return read_marker(path) if path.is_file() else {}


def find_duplicates(
    runs: Sequence[Path], near: NearDuplicateSettings, repeated: RepeatedTextSettings, directory: Path, run: Run
) -> FoundDuplicates:
    """Find the near-duplicates and the repeated passages in all runs.

    Tasks write their tables atomically, and the result does not depend on the executor.

    A task needs memory for the hashes of about 64 MB of text, or about 100 bytes for each of 2^18 documents. If there
    are more than 2^24 documents, a bucket task processes 1/64 of the documents. A bucket with more than
    2^18 documents needs more memory.

    The temporary tables need 4 bytes of disk space per word, 8 bytes per document and band, and space for the candidate
    pairs. The temporary tables are deleted after the near-duplicates are resolved.

    Args:
        runs: Paths of the runs, in the order of the sources. Each run is sorted by document ID. Of two near-duplicates,
            the document in the earlier run is kept.
        near: Settings for near-duplicates.
        repeated: Settings for repeated passages.
        directory: Directory in which the tables are written. `FoundDuplicates` reads some of these tables later.
        run: Function that runs a list of tasks. The first argument of `run` is the label of the progress display.

    Raises:
        DataError: An existing corpus is missing.
    """
    from groundup.corpus.dedup.partitions import plan

    existing = [(shard, str(corpus)) for corpus in near.existing for shard in _shards(corpus)]
    repeats = repeated.unit != "none"
    runs_of = [*existing, *((path, "") for path in runs)]
    partitions = plan(runs_of, small=repeated.unit == "span") if near.enabled or repeats else []
    if near.enabled:
        _resolve_near(partitions, near, directory, run)
    parts = _find_repeated(partitions, repeated, directory, run) if repeats else 0
    return FoundDuplicates(tuple(runs), near, repeated, directory, parts)


def _resolve_near(partitions: Sequence[Partition], settings: NearDuplicateSettings, directory: Path, run: Run) -> None:
    from groundup.corpus.dedup.pairs import BucketTask, CompareTask
    from groundup.corpus.dedup.partitions import SignatureTask
    from groundup.corpus.dedup.resolve import ResolveTask

    all_partitions = tuple(partitions)
    documents = sum(partition.documents for partition in partitions)
    known = sum(partition.documents for partition in partitions if partition.corpus)
    parts = min(_MAX_PARTS, -(-documents // _BUCKET_DOCUMENTS)) or 1
    buckets = [
        BucketTask(all_partitions, band, settings.bands, part, parts, known, directory)
        for band in range(settings.bands)
        for part in range(parts)
    ]
    candidates = tuple(task.table for task in buckets)
    step = max(_COMPARED_DOCUMENTS, -(-(documents - known) // _MAX_COMPARE_TASKS))
    compares = [
        CompareTask(all_partitions, candidates, low, min(low + step, documents), settings.threshold, directory)
        for low in range(known, documents, step)
    ]
    resolve = ResolveTask(all_partitions, tuple((task.table, task.low) for task in compares), directory)
    if not resolve.done():
        tasks = [
            SignatureTask(partition, number, settings.ngram, settings.bands, settings.rows, directory)
            for number, partition in enumerate(partitions)
        ]
        run("signatures", _grouped(tasks, [partition.bytes for partition in partitions], _MIN_BYTES))
        run("candidates", _grouped(buckets, [documents // parts] * len(buckets), _MIN_MEMBERS))
        run("comparing", compares)
        run("near-duplicates", [resolve])
    _remove(directory, ("signed-*", "candidates-*", "similar-*"))


def _find_repeated(partitions: Sequence[Partition], settings: RepeatedTextSettings, directory: Path, run: Run) -> int:
    """Write the tables of repeated passages and return the number of tables."""
    from groundup.corpus.dedup.passages import PassageTask, RepeatedPassageTask, num_parts

    passages = [PassageTask(partition, number, settings, directory) for number, partition in enumerate(partitions)]
    parts = num_parts(sum(partition.bytes for partition in partitions), settings)
    tables = tuple(task.table for task in passages)
    repeats = [RepeatedPassageTask(tables, part, parts, directory) for part in range(parts)]
    if not all(task.done() for task in repeats):
        run(f"{settings.unit}s", _grouped(passages, [partition.bytes for partition in partitions], _MIN_BYTES))
        run(f"repeated {settings.unit}s", repeats)
    _remove(directory, ("passages-*",))
    return parts


def _remove(directory: Path, patterns: Sequence[str]) -> None:
    """Delete the tables that match one of the patterns and that no later task reads."""
    for pattern in patterns:
        for table in directory.glob(pattern):
            shutil.rmtree(table)


def _shards(corpus: Path) -> list[Path]:
    shards = shard_paths(corpus, "train") + shard_paths(corpus, "validation")
    if not shards:
        raise DataError(
            f"{corpus}: no shards",
            rule="the directory is not a corpus that `groundup collect` wrote",
            fix="Correct the path in `existing`, or remove it.",
        )
    return shards


def _common_ids(runs: Sequence[Path], shards: Sequence[Path], low: str, high: str) -> Iterator[str]:
    import numpy as np

    def ids(paths: Sequence[Path]) -> Any:
        found = (bytes.fromhex(each) for path in paths for each in read_ids(path, low, high))
        return np.fromiter(found, "S16")

    for each in np.intersect1d(ids(runs), ids(shards)):
        yield bytes(each).ljust(16, b"\0").hex()  # NumPy strips trailing zeros
