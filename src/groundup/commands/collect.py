"""`groundup collect`: build a clean corpus from sources of text, and write its data card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from groundup.commands._result import result_facts, show_result
from groundup.core import artifact
from groundup.core.artifact import Artifact
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.corpus.settings import CorpusSettings
from groundup.corpus.sources import FolderSource, Source
from groundup.corpus.steps import NamedStep

PAGE = "card.html"  # file name of the data card as a web page

EXAMPLE = "groundup collect --folder ~/notes --out runs/notes/corpus"


class CollectConfig(CorpusSettings):
    """Settings of `groundup collect`."""

    folder: Path | None = setting(None, help="read this folder instead of the recipe's sources", flag=True)
    extraction: Literal["best", "fast"] | None = setting(
        None, help="text extraction from web pages: best (quality), or fast (about 3 times as fast)", flag=True
    )
    out: Path = setting(help="output directory for the corpus", flag=True)
    workers: int | None = setting(None, help="number of worker processes; default: one per core", ge=1, flag=True)
    engine: Literal["processes", "ray"] = setting(
        "processes", help="run tasks in local processes, or on a Ray cluster (pip: groundup[ray])", flag=True
    )

    perplexity_model: Path | None = setting(
        None, help="model or run directory for the perplexity filter; default: no perplexity filter"
    )
    max_bits_per_byte: float = setting(3.0, help="perplexity filter: maximum bits per byte of a document", gt=0)
    min_bits_per_byte: float = setting(0.0, help="perplexity filter: minimum bits per byte of a document", ge=0)

    @property
    def all_sources(self) -> list[Source]:
        """The sources in the recipe, or the folder if it is set. `extraction` overrides the value of each source."""
        sources: list[Source] = [FolderSource(path=self.folder)] if self.folder else self.sources
        if self.extraction is None:
            return sources
        return [source.model_copy(update={"extraction": self.extraction}) for source in sources]


def run(config: CollectConfig, *, console: Console | None = None) -> Artifact:
    """Build the corpus in `config.out`, unless `config.out` is a corpus from the same sources and settings.

    Raises:
        ConfigError: The settings contain no sources, or `out` is inside a source folder or contains other files.
        GroundupError: The errors of `groundup.corpus.build_corpus`.
    """
    import os

    from groundup.corpus import build_corpus
    from groundup.corpus.card_text import corpus_summary, found_fields
    from groundup.corpus.executor import ProcessPool
    from groundup.corpus.ray_cluster import RayCluster

    console = console or Console()
    sources = config.all_sources
    if not sources:
        raise ConfigError(
            "collect.sources is empty",
            rule="a corpus needs at least one source of text",
            fix="Give --folder PATH, or a recipe with [[collect.sources]] tables.",
        )
    for source in sources:
        if isinstance(source, FolderSource) and config.out.resolve().is_relative_to(source.path.resolve()):
            raise ConfigError(
                f"--out {config.out} is inside the source folder {source.path}",
                rule="the next run would read the corpus as a source",
                fix="Give an output directory outside the source folder.",
            )
    settings = config.model_copy(update={"sources": sources, "folder": None})
    keys = settings.model_dump(
        mode="json", exclude={"out", "workers", "engine", "folder", "extraction", "perplexity_model"}
    )
    for table in keys["sources"]:
        table.pop("path", None)
    inputs, extra_steps = _inputs(config, sources), _extra_steps(config)
    work = artifact.begin(config.out, "collect", keys, inputs, console=console)
    if work.state == "done":
        return show_result(console, config.out, artifact.read(config.out))
    workers = config.workers or os.cpu_count() or 1
    with RayCluster(workers) if config.engine == "ray" else ProcessPool(workers) as executor:
        try:
            card, files = build_corpus(
                settings, work.directory, executor=executor, console=console, extra_steps=extra_steps
            )
        finally:  # If the corpus is too small, the page shows which documents were dropped.
            page = _write_page(work.directory)
    facts = {split: card[split] for split in ("train", "validation")} | {
        "sources": {s["name"]: {"documents": s["documents"], "bytes": s["bytes"]} for s in card["sources"]},
        **result_facts(f"{corpus_summary(card)}; see {PAGE}"),
    }
    for source in card["sources"]:
        if fields := found_fields(source):
            console.note(f"{source['name']}: text read from {fields}; set `text` in a recipe to use another field")
    return show_result(console, config.out, work.finish(facts, [*files, page]))


def _write_page(corpus: Path) -> Path:
    """Render the data card to an HTML page if the card exists. Return the path of the page."""
    from groundup.core.files import atomic_file
    from groundup.corpus import read_card
    from groundup.corpus.card import CARD
    from groundup.report import render_card

    page = corpus / PAGE
    if (corpus / CARD).is_file():
        with atomic_file(page) as temporary:
            temporary.write_text(render_card(read_card(corpus)), encoding="utf-8")
    return page


def _inputs(config: CollectConfig, sources: Sequence[Source]) -> dict[str, str]:
    """Return the hash of each source and of each file and directory that the recipe refers to."""
    inputs = {source.label: source.identity() for source in sources}
    files = [*config.decontaminate.files, *config.quality.good, *config.quality.bad]
    inputs |= {f"file {path}": FolderSource(path=path).identity() for path in files}
    inputs |= {f"existing {path}": artifact.read_intact(path).digest for path in config.near_duplicates.existing}
    if config.perplexity_model is not None:
        from groundup.hub.resolve import model_identity, resolve_model

        inputs["perplexity_model"] = model_identity(resolve_model(config.perplexity_model))
    return inputs


def _extra_steps(config: CollectConfig) -> list[NamedStep]:
    """Return the perplexity filter if it is enabled; it is an extra step because only this filter needs torch."""
    if config.perplexity_model is None:
        return []
    from groundup.corpus.quality.classifier import PerplexityFilter
    from groundup.evaluation.text_scorer import TextScorer
    from groundup.hub.resolve import resolve_model

    bits_per_byte = TextScorer(resolve_model(config.perplexity_model))
    return [("perplexity", PerplexityFilter(bits_per_byte, config.max_bits_per_byte, config.min_bits_per_byte))]
