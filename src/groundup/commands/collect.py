"""The collect stage: sources of text in, a clean corpus with a data card out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from groundup.commands._closing import closing, say_result
from groundup.core import artifact
from groundup.core.artifact import Artifact
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.corpus.settings import CorpusSettings
from groundup.corpus.sources import FolderSource, Source
from groundup.corpus.steps import NamedStep

PAGE = "card.html"  # the data card as people look at it

EXAMPLE = "groundup collect --folder ~/notes --out runs/notes/corpus"


class CollectConfig(CorpusSettings):
    """Settings of `groundup collect`."""

    folder: Path | None = setting(None, help="read this folder, instead of a recipe's sources", flag=True)
    extraction: Literal["best", "fast"] | None = setting(
        None, help="main text of web pages, of all sources: best, or about three times as fast", flag=True
    )
    out: Path = setting(help="directory for the corpus", flag=True)
    workers: int | None = setting(
        None, help="processes that read at the same time; default: one a core", ge=1, flag=True
    )
    engine: Literal["processes", "ray"] = setting(
        "processes",
        help="who does the work: processes of this machine, or Ray (a cluster; extra [ray])",
        flag=True,
    )

    judge: Path | None = setting(None, help="a model (a directory, or a run): how surprised may it be by a document?")
    max_bits_per_byte: float = setting(3.0, help="of the judge: documents that surprise it more are dropped", gt=0)
    min_bits_per_byte: float = setting(0.0, help="of the judge: documents that surprise it less are dropped", ge=0)

    @property
    def all_sources(self) -> list[Source]:
        """The recipe's sources, or the folder, with what is said for all of them."""
        sources: list[Source] = [FolderSource(path=self.folder)] if self.folder else self.sources
        if self.extraction is None:
            return sources
        return [source.model_copy(update={"extraction": self.extraction}) for source in sources]


def run(config: CollectConfig, *, console: Console | None = None) -> Artifact:
    """Collect the sources into `config.out`; a finished corpus of the same sources and settings stays.

    Raises:
        ConfigError: no sources, or an output directory that is not ours.
        GroundupError: see `groundup.corpus.build_corpus`.
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
            "collect.sources: empty",
            rule="a corpus needs at least one source of text",
            fix="Give --folder PATH, or a recipe with [[collect.sources]] tables.",
        )
    for source in sources:
        if isinstance(source, FolderSource) and config.out.resolve().is_relative_to(source.path.resolve()):
            raise ConfigError(
                f"--out {config.out}: inside the folder {source.path}",
                rule="the corpus must not become a part of its own source",
                fix="Give an output directory outside of the folder that is read.",
            )
    settings = config.model_copy(update={"sources": sources, "folder": None})
    keys = settings.model_dump(mode="json", exclude={"out", "workers", "engine", "folder", "extraction", "judge"})
    for table in keys["sources"]:
        table.pop("path", None)
    inputs, judges = _inputs(config, sources), _judges(config)
    work = artifact.begin(config.out, "collect", keys, inputs, console=console)
    if work.state == "done":
        return say_result(console, config.out, artifact.read(config.out))
    workers = config.workers or os.cpu_count() or 1
    with RayCluster(workers) if config.engine == "ray" else ProcessPool(workers) as executor:
        try:
            card, files = build_corpus(settings, work.directory, executor=executor, console=console, judges=judges)
        finally:  # too little text is refused with its card, which shows where the rest of it went
            page = _write_page(work.directory)
    facts = {split: card[split] for split in ("train", "validation")} | {
        "sources": {s["name"]: {"documents": s["documents"], "bytes": s["bytes"]} for s in card["sources"]},
        **closing(f"{corpus_summary(card)}; all of it in {PAGE}"),
    }
    for source in card["sources"]:
        if fields := found_fields(source):
            console.note(f"{source['name']}: text taken from {fields}; name another field with `text` in a recipe")
    return say_result(console, config.out, work.finish(facts, [*files, page]))


def _write_page(corpus: Path) -> Path:
    """Draw the data card, if there is one yet; return where the page is."""
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
    """What decides the corpus beside the settings: the content of the sources, and of all that the recipe names."""
    inputs = {source.label: source.identity() for source in sources}
    files = [*config.decontaminate.files, *config.quality.good, *config.quality.bad]
    inputs |= {f"file {path}": FolderSource(path=path).identity() for path in files}
    inputs |= {f"existing {path}": artifact.read_intact(path).digest for path in config.near_duplicates.existing}
    if config.judge is not None:
        from groundup.hub.resolve import model_identity, resolve_model

        inputs["judge"] = model_identity(resolve_model(config.judge))
    return inputs


def _judges(config: CollectConfig) -> list[NamedStep]:
    """The model that judges each document, as the last filter. Only this one waits for torch."""
    if config.judge is None:
        return []
    from groundup.corpus.quality.classifier import BitsPerByteStep
    from groundup.evaluation.judge import ModelJudge
    from groundup.hub.resolve import resolve_model

    judge = ModelJudge(resolve_model(config.judge))
    return [("judge", BitsPerByteStep(judge, config.max_bits_per_byte, config.min_bits_per_byte))]
