"""Finds, over all runs at once, what is in a corpus more than once."""

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

# What computes is imported inside the functions: the command line imports this room for every --help.

NEAR_DUPLICATE = "near-duplicate"
IN_ANOTHER_CORPUS = "in another corpus"
_BUCKET_DOCUMENTS = 1 << 18  # of one band, in one task
_MAX_PARTS = 64
_MIN_MEMBERS = 1 << 20  # of buckets, in one task
_MIN_BYTES = 8 << 20  # of text, in one task
_COMPARED_DOCUMENTS = 1 << 14
_MAX_COMPARE_TASKS = 256

Run = Callable[[str, Sequence[Task]], None]


@dataclass(frozen=True, slots=True)
class _TaskGroup:
    """Several small tasks as one: to start a process takes longer than they do."""

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


def _grouped(tasks: Sequence[Task], sizes: Sequence[int], least: int) -> list[_TaskGroup]:
    """Consecutive tasks in groups of at least this size, but for the last one."""
    groups: list[_TaskGroup] = []
    group: list[Task] = []
    size = 0
    for number, task in enumerate(tasks, start=1):
        group.append(task)
        size += sizes[number - 1]
        if size >= least or number == len(tasks):
            groups.append(_TaskGroup(tuple(group)))
            group, size = [], 0
    return groups


@dataclass(frozen=True, slots=True)
class FoundDuplicates:
    """What was found; it travels to the tasks that write the shards, and reads from `directory` there."""

    runs: tuple[Path, ...]
    near: NearDuplicateSettings
    repeated: RepeatedTextSettings
    directory: Path
    parts: int

    def within(self, low: str, high: str) -> dict[str, Removal]:
        """The documents with an id in [low, high) that go: near-duplicates, and exact copies of existing corpora.

        In memory are those, and 16 bytes for each document of an existing corpus in that range.
        """
        from groundup.corpus.dedup.resolve import near_duplicates_in

        gone = {}
        for each in near_duplicates_in(self.directory, low, high):
            where = f", in {each.corpus}" if each.corpus else ""
            gone[each.id] = Removal(Drop(NEAR_DUPLICATE, f"J = {each.jaccard:.3f}{where}"), each.kept)
        for corpus in self.near.existing:
            copies = _common_ids(self.runs, _shards(corpus), low, high)
            gone.update({each: Removal(Drop(IN_ANOTHER_CORPUS, str(corpus)), each) for each in copies})
        return gone

    def without_repeats(self, document: Document) -> Document:
        """The document without the passages that another document, which comes first, has too."""
        if self.repeated.unit == "none":
            return document
        from groundup.corpus.dedup.passages import without_repeated_passages

        return without_repeated_passages(document, self.repeated, self.directory, self.parts)

    def summary(self) -> dict[str, Any]:
        """For the data card: `documents` looked at, `existing` ones, `dropped`, and the largest `clusters`.

        A cluster is the id of the document `kept`, and how many were `dropped` for it. Empty if nobody looked.
        """
        from groundup.corpus.dedup.resolve import SUMMARY

        path = self.directory / SUMMARY
        return read_marker(path) if path.is_file() else {}


def find_duplicates(
    runs: Sequence[Path], near: NearDuplicateSettings, repeated: RepeatedTextSettings, directory: Path, run: Run
) -> FoundDuplicates:
    """Look for near-duplicates, and for repeated passages, in all runs together.

    The tasks leave whole tables or none, and give the same whatever the executor. Memory is bounded: a task holds the
    numbers of some 64 MB of text, or about 100 bytes for each of 2^18 documents (from 2^24 documents on, for a 64th
    part of them), or a bucket if that is larger. Disk: for each document 4 bytes a word, 8 a band, and some for
    candidates, until the near-duplicates are resolved.

    Args:
        runs: documents by id, in the order in which the sources come: of two near-copies the first one stays.
        directory: for tables; what the result reads from stays there.
        run: runs tasks under a label.

    Raises:
        DataError: an existing corpus is not there.
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

    all_portions = tuple(partitions)
    documents = sum(partition.documents for partition in partitions)
    known = sum(partition.documents for partition in partitions if partition.corpus)
    parts = min(_MAX_PARTS, -(-documents // _BUCKET_DOCUMENTS)) or 1
    buckets = [
        BucketTask(all_portions, band, settings.bands, part, parts, known, directory)
        for band in range(settings.bands)
        for part in range(parts)
    ]
    candidates = tuple(task.table for task in buckets)
    step = max(_COMPARED_DOCUMENTS, -(-(documents - known) // _MAX_COMPARE_TASKS))
    compares = [
        CompareTask(all_portions, candidates, low, min(low + step, documents), settings.threshold, directory)
        for low in range(known, documents, step)
    ]
    resolve = ResolveTask(all_portions, tuple((task.table, task.low) for task in compares), directory)
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
    """In how many parts the repeated passages are."""
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
    """Remove tables that nothing reads any more."""
    for pattern in patterns:
        for table in directory.glob(pattern):
            shutil.rmtree(table)


def _shards(corpus: Path) -> list[Path]:
    shards = shard_paths(corpus, "train") + shard_paths(corpus, "validation")
    if not shards:
        raise DataError(
            f"{corpus}: no shards",
            rule="an existing corpus is a directory that `groundup collect` wrote",
            fix="Correct the path in `existing`, or take it out.",
        )
    return shards


def _common_ids(runs: Sequence[Path], shards: Sequence[Path], low: str, high: str) -> Iterator[str]:
    import numpy as np

    def ids(paths: Sequence[Path]) -> Any:
        found = (bytes.fromhex(each) for path in paths for each in read_ids(path, low, high))
        return np.fromiter(found, "S16")

    for each in np.intersect1d(ids(runs), ids(shards)):
        yield bytes(each).ljust(16, b"\0").hex()  # numpy leaves out zeros at the end
