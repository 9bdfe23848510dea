"""Builds a corpus: fetches the sources, runs the steps of the pipeline shard by shard, writes the data card.

The steps are tasks from files to files, run by an executor: read (files to sorted runs), find duplicates (over all
runs), merge (runs to shards), repeat (shards to those of a mixture). Each task leaves its counts as JSON, written
last: that file is the mark of completion. Order and content depend on the documents alone, so the result is the same
whatever the engine, the number of workers, and whatever was killed and run again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.files import require_disk_space, shell_quoted
from groundup.core.types import Split
from groundup.corpus.card import Drops, Tally, total
from groundup.corpus.card_text import format_size, reasons, write_card
from groundup.corpus.dedup import FoundDuplicates, find_duplicates
from groundup.corpus.drop_log import DROP_LOG, DropRecord
from groundup.corpus.executor import Executor, TaskT
from groundup.corpus.formats import NO_TEXT, UNSUPPORTED
from groundup.corpus.manifest import MANIFEST, SourceFile
from groundup.corpus.markers import discard_damaged, read_marker, write_marker
from groundup.corpus.merging import DUPLICATES, FAN_IN, MergeTask, RepeatTask, consolidations
from groundup.corpus.mix import Share, mixture
from groundup.corpus.privacy import Masker
from groundup.corpus.reading import LENGTH, PRIVACY, READING, ReadTask, units
from groundup.corpus.rows import join_rows, read_rows
from groundup.corpus.settings import CorpusSettings
from groundup.corpus.sources import SourceConfig
from groundup.corpus.sources.base import FORMAT_NAMES
from groundup.corpus.steps import NamedStep

_PARTS = "parts"
QUALITY = "quality.safetensors"
_EVALUATIONS = "evaluations.npz"
DECONTAMINATION = "decontamination"
SPLITS: tuple[Split, Split] = ("train", "validation")
_MORE_TEXT = "Add more text or another source (groundup config collect lists them), or lower min_bytes for a trial."
_FIXES = {  # by how the reason begins for which most was dropped
    NO_TEXT: 'Name the field that holds the text in the source, e.g. text = "{body}".',
    UNSUPPORTED: f'If these are text, give the source format = "text"; else add what can be read: {FORMAT_NAMES}.',
}


def build_corpus(
    settings: CorpusSettings, out: Path, *, executor: Executor, console: Console, extra_steps: Sequence[NamedStep] = ()
) -> tuple[dict[str, Any], list[Path]]:
    """Collect the sources into `out`: train-*.parquet, validation-*.parquet, ledger/ and manifest/, card.json, card.md.

    Run again after it was cut off, it goes on with what is missing; the result does not depend on the executor.

    Args:
        judges: steps of the caller's own, for all sources, after the recipe's filters. They must pickle.

    Returns:
        The card, and the files that make up the corpus.

    Raises:
        ConfigError: a mixture of sources that are not there.
        DataError: a source is missing, unreadable or empty, or the whole is too small to learn from.
        DownloadError: an archive cannot be had, or is not the pinned one.
        ResourceError: too little disk, or a worker process keeps dying.
    """
    Masker(settings.privacy)  # a pattern that cannot be used is said here, not by a worker
    if settings.mix.enabled:
        settings.mix.require_known([source.label for source in settings.sources])
    for source in settings.sources:
        source.fetch(console)
    work = _Work(settings, out, executor, console, extra_steps)
    for path in discard_damaged(work.parts):
        console.warn(f"{path}: damaged since it was written; the work on it is done again.")
    reads = work.read()
    duplicates = work.find_duplicates(reads)
    merges = work.merge(reads, duplicates)
    shares, repeats = work.mix(merges)
    card = _card(settings, reads, merges, repeats, shares)
    card |= {"near_duplicates": work.near_duplicates(merges, duplicates), "decontamination": work.contamination(reads)}
    card |= {"quality": work.quality()}
    files = write_card(out, card) + work.keep_records(reads, merges)
    _require_enough(settings, card, out)  # with the records in place: they show where the text went
    work.tidy()
    return card, sorted([*out.glob("*.parquet"), *out.glob(QUALITY)]) + files


@dataclass(frozen=True, slots=True)
class _Work:
    settings: CorpusSettings
    out: Path
    executor: Executor
    console: Console
    extra_steps: Sequence[NamedStep]

    @property
    def parts(self) -> Path:
        return self.out / _PARTS

    def _run(self, label: str, tasks: Sequence[TaskT]) -> None:
        done = sum(task.done() for task in tasks)
        with self.console.progress(label, len(tasks), "tasks", done=done) as progress:
            self.executor(tasks, lambda _: progress.advance())

    def read(self) -> list[ReadTask]:
        """Sources to runs."""
        extra_steps = [*self._quality(), *self.extra_steps, *self._decontamination()]
        steps = {source.label: (*self.settings.steps(source), *extra_steps) for source in self.settings.sources}
        grouped = [(source, unit) for source in self.settings.sources for unit in units(source)]
        tasks = [
            ReadTask(source, unit, self.settings, steps[source.label], self.parts, number)
            for number, (source, unit) in enumerate(grouped)
        ]
        stored_bytes = sum(task.size for task in tasks)
        require_disk_space(self.out, int(sum(task.size * task.source.disk_ratio for task in tasks)), "collecting")
        done_bytes = sum(task.size for task in tasks if task.done())
        with self.console.progress("reading", stored_bytes, "B", done=done_bytes) as progress:
            by_size = sorted(tasks, key=lambda task: -task.size)  # the longest first, so that none is left alone
            self.executor(by_size, lambda task: progress.advance(task.size))
        return tasks

    def _quality(self) -> list[NamedStep]:
        """The step that wants documents like the examples, if some are given; what it learned stays with the corpus."""
        wanted = self.settings.quality
        if not (wanted.good or wanted.bad):
            return []
        from groundup.corpus.quality.classifier import QualityStep, train_from_files

        path, marker = self.out / QUALITY, self.parts / "quality.json"
        if not (path.is_file() and marker.is_file()):
            self.console.note("Learning from your examples which texts are wanted.")
            train_from_files(wanted, self.settings.max_document_bytes).save(path)
            write_marker(marker, [path])
        return [("quality", QualityStep(path, wanted.min_score))]

    def quality(self) -> dict[str, Any]:
        """How well the examples could be told apart; empty where there are none."""
        from groundup.corpus.quality.classifier import QualityClassifier

        path = self.out / QUALITY
        return QualityClassifier.load(path).report if path.is_file() else {}

    def _decontamination(self) -> list[NamedStep]:
        """The step that keeps evaluation items out, if some are given; their index lies where all workers find it."""
        wanted = self.settings.decontaminate
        if not wanted.files:
            return []
        from groundup.corpus.decontaminate import Decontaminate, build_index

        index = self.parts / _EVALUATIONS
        build_index(wanted).save(index)
        return [(DECONTAMINATION, Decontaminate(index, wanted.min_overlap))]

    def contamination(self, reads: Sequence[ReadTask]) -> dict[str, Any]:
        """Which evaluation items were in which documents; empty where nobody asked."""
        if not self.settings.decontaminate.files:
            return {}
        from groundup.corpus.decontaminate import contamination
        from groundup.corpus.evaluation_index import EvaluationIndex

        fates = read_rows((task.drop_log for task in reads), DropRecord)
        dropped = ((fate.origin, fate.detail) for fate in fates if fate.step == DECONTAMINATION)
        return contamination(EvaluationIndex.load(self.parts / _EVALUATIONS), dropped)

    def find_duplicates(self, reads: Sequence[ReadTask]) -> FoundDuplicates:
        """What is there more than once, over all sources."""
        by_source: dict[str, list[Path]] = {source.label: [] for source in self.settings.sources}
        for task in reads:
            by_source[task.source.label] += task.runs()
        most = max(1, FAN_IN // len(by_source))
        runs = [run for number, runs in enumerate(by_source.values()) for run in self._few(runs, most, number)]
        return find_duplicates(runs, self.settings.near_duplicates, self.settings.repeated_text, self.parts, self._run)

    def _few(self, runs: list[Path], most: int, source: int) -> list[Path]:
        """The runs of a source consolidated until they are few enough to be merged at once."""
        level = 0
        while len(runs) > most:
            level += 1
            tasks = consolidations(runs, self.parts / f"merged-{source:04d}-{level}")
            self._run("consolidating", tasks)
            for run in runs:
                run.unlink(missing_ok=True)
            runs = [task.output for task in tasks]
        return runs

    def merge(self, reads: Sequence[ReadTask], duplicates: FoundDuplicates) -> list[MergeTask]:
        """Runs to shards, without what is there more than once."""
        text_bytes = sum(tally.bytes for tally in _found(self.settings, reads).values())
        shards = max(1, round(text_bytes / self.settings.shard_bytes))
        held_out = min(self.settings.validation_fraction, self.settings.validation_max_bytes / max(1, text_bytes))
        trained_on = self.parts if self.settings.mix.enabled else self.out
        tasks = [
            MergeTask(
                runs=duplicates.runs,
                number=number,
                shards=shards,
                validation_fraction=held_out,
                min_document_bytes=self.settings.min_document_bytes,
                duplicates=duplicates,
                directory=self.parts,
                train=trained_on / f"train-{number:05d}.parquet",
                validation=self.out / f"validation-{number:05d}.parquet",
            )
            for number in range(shards)
        ]
        self._run("merging", tasks)
        return tasks

    def near_duplicates(self, merges: Sequence[MergeTask], duplicates: FoundDuplicates) -> dict[str, Any]:
        """How many there were; with each of the largest clusters a text that was dropped: an id alone tells nothing."""
        summary = duplicates.summary()
        waiting = {cluster["kept"]: cluster for cluster in summary.get("clusters", [])}
        for fate in read_rows((task.drop_log for task in merges), DropRecord) if waiting else ():
            if cluster := waiting.pop(fate.kept, None):
                cluster["sample"] = [fate.origin, fate.beginning]
            if not waiting:
                break
        return summary

    def mix(self, merges: Sequence[MergeTask]) -> tuple[dict[str, Share], list[RepeatTask]]:
        """Shards to those of the mixture, if one is wanted."""
        if not self.settings.mix.enabled:
            return {}, []
        sizes = {source.label: _counted(merges, "train", source.label).bytes for source in self.settings.sources}
        shares = mixture(self.settings.mix, sizes)
        epochs = {name: share.epochs for name, share in shares.items()}
        tasks = [RepeatTask(task.train, self.out / task.train.name, epochs) for task in merges]
        self._run("mixing", tasks)
        return shares, tasks

    def keep_records(self, reads: Sequence[ReadTask], merges: Sequence[MergeTask]) -> list[Path]:
        """What the tasks wrote down of files and of drops, in few tables."""
        drops = [task.drop_log for task in reads] + [task.drop_log for task in merges]
        return join_rows(drops, self.out / DROP_LOG, DropRecord) + join_rows(
            [task.manifest for task in reads], self.out / MANIFEST, SourceFile
        )

    def tidy(self) -> None:
        """Remove what only the building needed, and what killed attempts left."""
        for leftover in [p for part in ("", DROP_LOG, MANIFEST) for p in (self.out / part).glob(".*.tmp")]:
            if leftover.is_file():
                leftover.unlink()
        finished = self.out / ".parts.tmp"  # renamed first: half a directory of parts could not be gone on from
        shutil.rmtree(finished, ignore_errors=True)
        self.parts.rename(finished)
        shutil.rmtree(finished)


def _found(settings: CorpusSettings, reads: Sequence[ReadTask]) -> dict[str, Tally]:
    found = {source.label: Tally() for source in settings.sources}
    for task in reads:
        found[task.source.label].merge(Tally.from_json(read_marker(task.marker)["tally"]))
    return found


def _counted(tasks: Sequence[MergeTask | RepeatTask], part: str, label: str) -> Tally:
    """What the tasks counted in one part of the corpus, of one source."""
    counts = (read_marker(task.marker)[part] for task in tasks)
    return total(Tally.from_json(each[label]) for each in counts if label in each)


def _card(
    settings: CorpusSettings,
    reads: Sequence[ReadTask],
    merges: Sequence[MergeTask],
    repeats: Sequence[RepeatTask],
    shares: Mapping[str, Share],
) -> dict[str, Any]:
    """All steps' counts together: kept is what is there once, dropped is what any step dropped."""
    found = _found(settings, reads)
    kept = {
        split: {source.label: _counted(merges, split, source.label) for source in settings.sources} for split in SPLITS
    }
    sources = []
    for source in settings.sources:
        label = source.label
        tally = total([kept[split][label] for split in SPLITS])
        gone = total([found[label], _counted(merges, "dropped", label)])
        tally.files, tally.drops, tally.fields = gone.files, gone.drops, gone.fields
        tally.cut, tally.masked = gone.cut, gone.masked
        share = {"mixture": asdict(shares[label])} if label in shares else {}
        sources.append(_describe(source) | tally.to_json() | share)
    splits: dict[str, Any] = {}
    for split in SPLITS:
        of_split = kept[split]
        if split == "train" and repeats:
            of_split = {source.label: _counted(repeats, split, source.label) for source in settings.sources}
        share_ = total(of_split.values())
        splits[split] = {"documents": share_.documents, "bytes": share_.bytes}
    steps = dict.fromkeys(name for task in reads for name, _ in task.steps)
    return {**splits, "steps": [READING, LENGTH, *steps, PRIVACY, DUPLICATES], "sources": sources}


def _describe(source: SourceConfig) -> dict[str, Any]:
    return {
        "name": source.label,
        "genre": source.genre,
        "license": source.license,
        "provenance": source.provenance(),
    }


def _require_enough(settings: CorpusSettings, card: dict[str, Any], out: Path) -> None:
    train = card["train"]
    if train["bytes"] >= max(1, settings.min_bytes):
        return
    files = sum(source["files"] for source in card["sources"])
    worst = reasons(card, 4)
    dropped = "; dropped: " + ", ".join(f"{drops.documents:,} {reason}" for reason, drops in worst) if worst else ""
    names = ", ".join(source["name"] for source in card["sources"])
    raise DataError(
        f"{names}: {format_size(train['bytes'])} of text to train on, from {files:,} files{dropped}{_example(worst)}",
        rule=f"a model needs at least {format_size(max(1, settings.min_bytes))} to learn from (min_bytes)",
        fix=next((fix for start, fix in _FIXES.items() if worst and worst[0][0].startswith(start)), _MORE_TEXT)
        + f" Why a document was dropped: groundup corpus explain {shell_quoted(out)} FILE.",
    )


def _example(worst: Sequence[tuple[str, Drops]]) -> str:
    _, origin, text = worst[0][1].samples[0] if worst else ("", "", "")
    return f", e.g. {origin}: {text}" if text else ""
