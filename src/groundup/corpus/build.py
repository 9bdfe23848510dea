"""Build a corpus: fetch the sources, run the pipeline and write the data card.

An executor runs tasks, which read files and write files. There are four kinds of tasks:

- Read tasks convert the files of a source to runs, which are sorted files of documents.
- Duplicate tasks compare the documents in all runs.
- Merge tasks merge the runs into shards and drop the duplicates.
- Repeat tasks write the shards of a mixture, in which sources may be repeated.

When a task is finished, it writes its counts to a JSON file, which marks the task as done. The result depends only on
the documents. The executor, the number of workers and interruptions do not change the result.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_MORE_TEXT = "Add text or another source (see groundup config collect). For a test, lower min_bytes."
_FIXES = {  # advice for error messages, keyed by the first words of the most frequent drop reason
    NO_TEXT: 'Set the field with the text in the source, e.g. text = "{body}".',
    UNSUPPORTED: f'If these are text files, set format = "text" in the source. Supported formats: {FORMAT_NAMES}.',
}


def build_corpus(
    settings: CorpusSettings, out: Path, *, executor: Executor, console: Console, extra_steps: Sequence[NamedStep] = ()
) -> tuple[dict[str, Any], list[Path]]:
    """Build the corpus in `out`, or resume an interrupted build.

    The build writes train-*.parquet, validation-*.parquet, drop_log/, manifest/, card.json and card.md.

    Args:
        settings: Sources and processing steps.
        out: Output directory.
        executor: Runs the tasks. The executor does not change the result.
        console: Shows progress and warnings.
        extra_steps: Additional picklable steps for all sources, which run after the filters of the recipe.

    Returns:
        The data card, and the files of the corpus.

    Raises:
        ConfigError: The mixture names unknown sources, or a privacy pattern is invalid.
        DataError: A source is missing, unreadable or empty, or the corpus is smaller than `min_bytes`.
        DownloadError: An archive cannot be downloaded, or its hash differs.
        ResourceError: The disk does not have enough space, or a worker process is killed repeatedly.
    """
    Masker(settings.privacy)  # raises an error for invalid patterns before the workers start
    if settings.mix.enabled:
        settings.mix.require_known([source.label for source in settings.sources])
    for source in settings.sources:
        source.fetch(console)
    work = _Work(settings, out, executor, console, extra_steps)
    for path in discard_damaged(work.parts):
        console.warn(f"{path}: the file is damaged, so its task runs again.")
    reads = work.read()
    duplicates = work.find_duplicates(reads)
    merges = work.merge(reads, duplicates)
    shares, repeats = work.mix(merges)
    card = _card(settings, reads, merges, repeats, shares)
    card |= {"near_duplicates": work.near_duplicates(merges, duplicates), "decontamination": work.contamination(reads)}
    card |= {"quality": work.quality()}
    files = write_card(out, card) + work.keep_records(reads, merges)
    # The size is checked last, because the user needs the drop log to see why a corpus is small.
    _require_enough(settings, card, out)
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
        """Read the sources, and write their documents to runs."""
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
            # The largest tasks start first, to balance the load of the workers.
            by_size = sorted(tasks, key=lambda task: -task.size)
            self.executor(by_size, lambda task: progress.advance(task.size))
        return tasks

    def _quality(self) -> list[NamedStep]:
        """Return the quality classifier step if the settings contain examples.

        The corpus stores the classifier weights.
        """
        settings = self.settings.quality
        if not (settings.good or settings.bad):
            return []
        from groundup.corpus.quality.classifier import QualityStep, train_from_files

        path, marker = self.out / QUALITY, self.parts / "quality.json"
        if not (path.is_file() and marker.is_file()):
            self.console.note("Training the quality classifier on your examples.")
            train_from_files(settings, self.settings.max_document_bytes).save(path)
            write_marker(marker, [path])
        return [("quality", QualityStep(path, settings.min_score))]

    def quality(self) -> dict[str, Any]:
        """Return the report of the quality classifier, or an empty dict if no classifier was trained."""
        from groundup.corpus.quality.classifier import QualityClassifier

        path = self.out / QUALITY
        return QualityClassifier.load(path).report if path.is_file() else {}

    def _decontamination(self) -> list[NamedStep]:
        """Return the decontamination step if the settings contain evaluation files.

        Workers load the index of evaluation items from a file.
        """
        settings = self.settings.decontaminate
        if not settings.files:
            return []
        from groundup.corpus.decontaminate import Decontaminate, build_index

        index = self.parts / _EVALUATIONS
        build_index(settings).save(index)
        return [(DECONTAMINATION, Decontaminate(index, settings.min_overlap))]

    def contamination(self, reads: Sequence[ReadTask]) -> dict[str, Any]:
        """Return the decontamination report, or an empty dict if the settings contain no evaluation files."""
        if not self.settings.decontaminate.files:
            return {}
        from groundup.corpus.decontaminate import contamination
        from groundup.corpus.evaluation_index import EvaluationIndex

        records = read_rows((task.drop_log for task in reads), DropRecord)
        dropped = ((record.origin, record.detail) for record in records if record.step == DECONTAMINATION)
        return contamination(EvaluationIndex.load(self.parts / _EVALUATIONS), dropped)

    def find_duplicates(self, reads: Sequence[ReadTask]) -> FoundDuplicates:
        """Find documents that are duplicates of each other, within and across sources."""
        by_source: dict[str, list[Path]] = {source.label: [] for source in self.settings.sources}
        for task in reads:
            by_source[task.source.label] += task.runs()
        max_runs = max(1, FAN_IN // len(by_source))
        runs = [
            run for number, runs in enumerate(by_source.values()) for run in self._consolidate(runs, max_runs, number)
        ]
        return find_duplicates(runs, self.settings.near_duplicates, self.settings.repeated_text, self.parts, self._run)

    def _consolidate(self, runs: list[Path], max_runs: int, source: int) -> list[Path]:
        """Merge the runs of a source until at most `max_runs` remain."""
        level = 0
        while len(runs) > max_runs:
            level += 1
            tasks = consolidations(runs, self.parts / f"merged-{source:04d}-{level}")
            self._run("consolidating", tasks)
            for run in runs:
                run.unlink(missing_ok=True)
            runs = [task.output for task in tasks]
        return runs

    def merge(self, reads: Sequence[ReadTask], duplicates: FoundDuplicates) -> list[MergeTask]:
        """Merge the runs into shards, and drop the duplicates."""
        text_bytes = sum(tally.bytes for tally in _found(self.settings, reads).values())
        shards = max(1, round(text_bytes / self.settings.shard_bytes))
        fraction = min(self.settings.validation_fraction, self.settings.validation_max_bytes / max(1, text_bytes))
        train_directory = self.parts if self.settings.mix.enabled else self.out
        tasks = [
            MergeTask(
                runs=duplicates.runs,
                number=number,
                shards=shards,
                validation_fraction=fraction,
                min_document_bytes=self.settings.min_document_bytes,
                duplicates=duplicates,
                directory=self.parts,
                train=train_directory / f"train-{number:05d}.parquet",
                validation=self.out / f"validation-{number:05d}.parquet",
            )
            for number in range(shards)
        ]
        self._run("merging", tasks)
        return tasks

    def near_duplicates(self, merges: Sequence[MergeTask], duplicates: FoundDuplicates) -> dict[str, Any]:
        """Return the report of near-duplicates, with one dropped text for each of the largest clusters."""
        summary = duplicates.summary()
        pending = {cluster["kept"]: cluster for cluster in summary.get("clusters", [])}
        for record in read_rows((task.drop_log for task in merges), DropRecord) if pending else ():
            if cluster := pending.pop(record.kept, None):
                cluster["sample"] = [record.origin, record.beginning]
            if not pending:
                break
        return summary

    def mix(self, merges: Sequence[MergeTask]) -> tuple[dict[str, Share], list[RepeatTask]]:
        """Write the shards of the mixture if the settings define a mixture."""
        if not self.settings.mix.enabled:
            return {}, []
        sizes = {source.label: _counted(merges, "train", source.label).bytes for source in self.settings.sources}
        shares = mixture(self.settings.mix, sizes)
        epochs = {name: share.epochs for name, share in shares.items()}
        tasks = [RepeatTask(task.train, self.out / task.train.name, epochs) for task in merges]
        self._run("mixing", tasks)
        return shares, tasks

    def keep_records(self, reads: Sequence[ReadTask], merges: Sequence[MergeTask]) -> list[Path]:
        """Join the drop logs and manifests of all tasks into a few tables."""
        drops = [task.drop_log for task in reads] + [task.drop_log for task in merges]
        return join_rows(drops, self.out / DROP_LOG, DropRecord) + join_rows(
            [task.manifest for task in reads], self.out / MANIFEST, SourceFile
        )

    def tidy(self) -> None:
        """Remove intermediate files and leftovers of interrupted builds."""
        for leftover in [p for part in ("", DROP_LOG, MANIFEST) for p in (self.out / part).glob(".*.tmp")]:
            if leftover.is_file():
                leftover.unlink()
        # The directory is renamed before it is deleted, because a build cannot resume from a partly deleted directory.
        finished = self.out / ".parts.tmp"
        shutil.rmtree(finished, ignore_errors=True)
        self.parts.rename(finished)
        shutil.rmtree(finished)


def _found(settings: CorpusSettings, reads: Sequence[ReadTask]) -> dict[str, Tally]:
    found = {source.label: Tally() for source in settings.sources}
    for task in reads:
        found[task.source.label].merge(Tally.from_json(read_marker(task.marker)["tally"]))
    return found


def _counted(tasks: Sequence[MergeTask | RepeatTask], part: str, label: str) -> Tally:
    """Return the summed counts of one source in one part of the corpus: "train", "validation" or "dropped"."""
    counts = (read_marker(task.marker)[part] for task in tasks)
    return total(Tally.from_json(each[label]) for each in counts if label in each)


def _card(
    settings: CorpusSettings,
    reads: Sequence[ReadTask],
    merges: Sequence[MergeTask],
    repeats: Sequence[RepeatTask],
    shares: Mapping[str, Share],
) -> dict[str, Any]:
    """Build the data card from the counts of all tasks.

    In the counts of a source, a document that the mixture repeats is counted once.
    """
    found = _found(settings, reads)
    kept = {
        split: {source.label: _counted(merges, split, source.label) for source in settings.sources} for split in SPLITS
    }
    sources = []
    for source in settings.sources:
        label = source.label
        tally = total([kept[split][label] for split in SPLITS])
        dropped = total([found[label], _counted(merges, "dropped", label)])
        tally.files, tally.drops, tally.fields = dropped.files, dropped.drops, dropped.fields
        tally.cut, tally.masked = dropped.cut, dropped.masked
        mixed = {"mixture": _share_json(shares[label])} if label in shares else {}
        sources.append(_describe(source) | tally.to_json() | mixed)
    splits: dict[str, Any] = {}
    for split in SPLITS:
        by_source = kept[split]
        if split == "train" and repeats:
            by_source = {source.label: _counted(repeats, split, source.label) for source in settings.sources}
        counts = total(by_source.values())
        splits[split] = {"documents": counts.documents, "bytes": counts.bytes}
    steps = dict.fromkeys(name for task in reads for name, _ in task.steps)
    return {**splits, "steps": [READING, LENGTH, *steps, PRIVACY, DUPLICATES], "sources": sources}


def _share_json(share: Share) -> dict[str, Any]:
    return {"epochs": share.epochs, "wanted": share.target, "limited": share.limited}


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
    count = f"{files:,} file{'s' * (files != 1)}"
    worst = reasons(card, 4)
    dropped = "; dropped: " + ", ".join(f"{drops.documents:,} {reason}" for reason, drops in worst) if worst else ""
    names = ", ".join(source["name"] for source in card["sources"])
    raise DataError(
        f"{names}: {format_size(train['bytes'])} of training text from {count}{dropped}{_example(worst)}",
        rule=f"the minimum is {format_size(max(1, settings.min_bytes))} (min_bytes)",
        fix=next((fix for start, fix in _FIXES.items() if worst and worst[0][0].startswith(start)), _MORE_TEXT)
        + f" To see why a file was dropped, run groundup corpus explain {shell_quoted(out)} FILE.",
    )


def _example(worst: Sequence[tuple[str, Drops]]) -> str:
    _, origin, text = worst[0][1].samples[0] if worst else ("", "", "")
    return f", e.g. {origin}: {text}" if text else ""
