"""Builds a corpus: fetches the sources, runs the two steps of the pipeline, writes the data card."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.console import Console
from groundup.corpus.card import Drops, Tally, reasons, size, total, write_card
from groundup.corpus.executor import run_tasks
from groundup.corpus.formats import NO_TEXT, UNSUPPORTED
from groundup.corpus.pipeline import ExtractTask, MergeTask, units
from groundup.corpus.settings import CorpusSettings
from groundup.corpus.sources import SourceConfig
from groundup.errors import DataError
from groundup.files import read_json, require_disk_space

_PARTS = "parts"
_MORE_TEXT = (
    "Add more text or another source (txt, md, html, json, jsonl, csv and parquet are read, also with .gz, .zst, .bz2),"
    " or lower min_bytes for a trial."
)
_FIXES = {  # by how the reason begins for which most was dropped
    NO_TEXT: 'Name the field that holds the text in the source, e.g. text = "{body}".',
    UNSUPPORTED: 'If these are text, give the source format = "text"; else add text (txt, md, html, json, csv, ...).',
}


def build_corpus(
    settings: CorpusSettings, out: Path, *, workers: int, console: Console
) -> tuple[dict[str, Any], list[Path]]:
    """Collect the sources into `out`: train-*.parquet, validation-*.parquet, card.json, card.md.

    Run again after it was cut off, it goes on with what is missing; the result does not depend on `workers`.

    Returns:
        The card, and the files that make up the corpus.

    Raises:
        DataError: a source is missing, unreadable or empty, or the whole is too small to learn from.
        DownloadError: an archive cannot be had, or is not the pinned one.
        ResourceError: too little disk, or a worker process keeps dying.
    """
    for source in settings.sources:
        source.fetch(console)
    parts = out / _PARTS
    extracts = _extract_tasks(settings, parts)
    stored_bytes = sum(task.size for task in extracts)
    require_disk_space(out, 2 * stored_bytes, "collecting")  # runs and shards, both compressed: a generous guess
    done_bytes = sum(task.size for task in extracts if task.done())
    with console.progress("reading", stored_bytes, "B", done=done_bytes) as progress:
        by_size = sorted(extracts, key=lambda task: -task.size)  # the longest first, so that none is left alone
        run_tasks(by_size, workers, lambda task: progress.advance(task.size))
    found = _tally_by_source(settings, extracts)
    text_bytes = sum(tally.bytes for tally in found.values())
    shards = max(1, round(text_bytes / settings.shard_bytes))
    merges = [
        MergeTask(
            runs=tuple(run for task in extracts for run in task.runs()),
            number=number,
            shards=shards,
            validation_fraction=min(settings.validation_fraction, settings.validation_max_bytes / max(1, text_bytes)),
            directory=parts,
            output=out,
        )
        for number in range(shards)
    ]
    done = sum(task.done() for task in merges)
    with console.progress("merging", shards, "shards", done=done) as progress:
        run_tasks(merges, workers, lambda _: progress.advance())
    card = _card(settings, found, [read_json(task.marker) for task in merges])
    _require_enough(settings, card)
    files = write_card(out, card)
    finished = out / ".parts.tmp"  # renamed first: half a directory of parts could not be gone on from
    shutil.rmtree(finished, ignore_errors=True)
    parts.rename(finished)
    shutil.rmtree(finished)
    return card, sorted(out.glob("*.parquet")) + files


def _extract_tasks(settings: CorpusSettings, parts: Path) -> list[ExtractTask]:
    grouped = [(source, unit) for source in settings.sources for unit in units(source)]
    return [ExtractTask(source, unit, settings, parts, number) for number, (source, unit) in enumerate(grouped)]


def _tally_by_source(settings: CorpusSettings, tasks: Sequence[ExtractTask]) -> dict[str, Tally]:
    found = {source.label: Tally() for source in settings.sources}
    for task in tasks:
        found[task.source.label].merge(Tally.from_json(read_json(task.marker)["tally"]))
    return found


def _card(settings: CorpusSettings, found: dict[str, Tally], merged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Both steps' counts together: kept is what is in the shards, dropped is what either step dropped."""

    def of(label: str, part: str) -> Tally:
        return total(Tally.from_json(counts[part][label]) for counts in merged if label in counts[part])

    sources = []
    for source in settings.sources:
        kept = total([of(source.label, "train"), of(source.label, "validation")])
        dropped = total([found[source.label], of(source.label, "duplicates")])
        kept.files, kept.drops, kept.fields = dropped.files, dropped.drops, dropped.fields
        sources.append(_describe(source) | kept.to_json())
    shares = {}
    for split in ("train", "validation"):
        share = total(of(source.label, split) for source in settings.sources)
        shares[split] = {"documents": share.documents, "bytes": share.bytes}
    return {**shares, "sources": sources}


def _describe(source: SourceConfig) -> dict[str, Any]:
    return {
        "name": source.label,
        "genre": source.genre,
        "licence": source.licence,
        "provenance": source.provenance(),
    }


def _require_enough(settings: CorpusSettings, card: dict[str, Any]) -> None:
    train = card["train"]
    if train["bytes"] >= max(1, settings.min_bytes):
        return
    files = sum(source["files"] for source in card["sources"])
    worst = reasons(card, 4)
    dropped = "; dropped: " + ", ".join(f"{drops.documents:,} {reason}" for reason, drops in worst) if worst else ""
    names = ", ".join(source["name"] for source in card["sources"])
    raise DataError(
        f"{names}: {size(train['bytes'])} of text to train on, from {files:,} files{dropped}{_example(worst)}",
        rule=f"a model needs at least {size(max(1, settings.min_bytes))} to learn from (min_bytes)",
        fix=next((fix for start, fix in _FIXES.items() if worst and worst[0][0].startswith(start)), _MORE_TEXT),
    )


def _example(worst: Sequence[tuple[str, Drops]]) -> str:
    _, origin, text = worst[0][1].samples[0] if worst else ("", "", "")
    return f", e.g. {origin}: {text}" if text else ""
