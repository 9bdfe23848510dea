"""`groundup index`: index the documents of a folder or a corpus, so that `groundup ask` finds passages in them."""

from __future__ import annotations

from pathlib import Path

from groundup.commands._result import result_facts, show_result
from groundup.core import artifact
from groundup.core.artifact import Artifact, Work
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError, FormatError
from groundup.core.plural import pluralize

EXAMPLE = "groundup index ~/notes --out runs/notes/index"
_MAX_SHOWN = 5  # maximum number of unreadable files to print


class IndexConfig(Config):
    """Settings of `groundup index`."""

    source: Path = setting(help="Folder or file with documents, or a corpus of groundup collect", positional=True)
    out: Path = setting(help="Output directory for the index", flag=True)
    passage_characters: int = setting(
        1200, help="Approximate maximum number of characters of a passage", flag=True, ge=100, le=10_000
    )
    vectors: Path | None = setting(
        None, help="Model whose vectors of passages are searched too; it stays necessary", flag=True
    )


def run(config: IndexConfig, *, console: Console | None = None) -> Artifact:
    """Build the index in `config.out`, or update it: only new and changed files are extracted again.

    The earlier index stays usable until the new one is finished, and is then deleted.

    Raises:
        ConfigError: `out` is inside the source folder, or contains other files.
        DataError: The source or the model of the vectors does not exist, or the source has no text.
    """
    from groundup.corpus.sources import FolderSource
    from groundup.retrieval import build
    from groundup.retrieval.documents import corpus_of
    from groundup.retrieval.index import VERSIONS
    from groundup.retrieval.vectors import EncoderRecord

    console = console or Console()
    source = FolderSource(path=config.source)
    corpus = corpus_of(config.source)
    if corpus is None and config.source.is_dir() and config.out.resolve().is_relative_to(config.source.resolve()):
        raise ConfigError(
            f"--out {config.out} is inside the source folder {config.source}",
            rule="the next update would read the index as a document",
            fix="Give an output directory outside the source folder.",
        )
    identity = source.identity() if corpus is None else artifact.read_intact(corpus).digest
    settings = {"passage_characters": config.passage_characters, "versions": VERSIONS}
    encoder = EncoderRecord.of(config.vectors) if config.vectors is not None else None
    inputs = {"source": identity} | ({"vectors": f"{encoder.path} {encoder.digest}"} if encoder else {})
    work = artifact.begin(config.out, "index", settings, inputs)
    if work.state == "done":
        build.delete_leftovers(config.out)
        console.note(f"{config.out} is up to date.")
        return show_result(console, config.out, artifact.read(config.out))
    build.delete_unfinished(config.out, work.directory)
    counts, previous = build.FileCounts(), _previous(work)
    if corpus is None:
        counts = build.write_documents(source, work.directory, previous, console)
    else:
        build.write_corpus_documents(corpus, work.directory, console)
    facts = build.write_search_files(work.directory, config.source, config.passage_characters, console)
    if encoder is not None:
        facts |= build.write_passage_vectors(work.directory, encoder, previous, console)
    _report(build.problems_of(work.directory), console)
    summary = f"{pluralize(facts['documents'], 'document')}, {pluralize(facts['passages'], 'passage')}"
    if corpus is None:
        summary += f" ({counts.read:,} files read, {counts.kept:,} unchanged, {counts.deleted:,} deleted)"
    facts |= {"name": (corpus or config.source).resolve().name, **result_facts(summary)}
    made = work.finish(facts, build.index_files(work.directory))
    build.delete_replaced(config.out)
    return show_result(console, config.out, made)


def _previous(work: Work) -> Path | None:
    """Return the directory of the earlier index if its documents can be copied, otherwise None."""
    from groundup.retrieval.index import require_version

    if work.target is None:
        return None
    try:
        require_version(work.target, artifact.read_intact(work.target))
    except FormatError:  # damaged, or from another release: all files are read again
        return None
    return work.target


def _report(problems: list[str], console: Console) -> None:
    for line in problems[:_MAX_SHOWN]:
        console.warn(f"not indexed: {line}")
    if len(problems) > _MAX_SHOWN:
        console.warn(f"not indexed: {len(problems) - _MAX_SHOWN:,} more; all reasons are in files.json")
