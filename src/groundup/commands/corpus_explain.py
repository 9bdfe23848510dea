"""`groundup corpus explain`: show why documents of a corpus were kept or dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.core.config import Config, setting
from groundup.core.console import Console, visible
from groundup.core.errors import DataError
from groundup.corpus.drop_log import DropRecord
from groundup.corpus.lookup import Kept
from groundup.corpus.manifest import SourceFile

EXAMPLE = "groundup corpus explain runs/quickstart/corpus miltondata"


class CorpusExplainConfig(Config):
    """Settings of `groundup corpus explain`."""

    corpus: Path = setting(help="output directory of groundup collect", positional=True)
    document: str = setting(help="ID of a document, or part of its file name or URL", positional=True)
    limit: int = setting(20, help="maximum number of documents to show", ge=1, flag=True)


def run(
    config: CorpusExplainConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[Kept | DropRecord]:
    """Return the kept and dropped documents whose ID, file name or URL matches.

    Args:
        config: Settings of the command.
        console: Console for messages; by default they are written to standard error.
        on_text: Called with each part of the output; by default the documents are returned but not written.
        json_lines: Whether to write one JSON object per line instead of text.

    Raises:
        DataError: The directory does not contain a corpus, or no document matches.
    """
    from groundup.core.artifact import require_intact
    from groundup.corpus import read_card
    from groundup.corpus.lookup import find_documents
    from groundup.corpus.manifest import files_of

    require_intact(config.corpus)
    card = read_card(config.corpus)
    found = list(islice(find_documents(config.corpus, config.document), config.limit + 1))
    if not found:
        raise DataError(
            f"no kept or dropped document matches {config.document!r} in {config.corpus}",
            rule="DOCUMENT is compared with IDs, file names and URLs",
            fix="To find a document by its text, run groundup corpus search CORPUS TEXT.",
        )
    shown = found[: config.limit]
    if on_text is None:
        return shown
    files = files_of(config.corpus, ((document.source, document.origin) for document in shown))
    for document in shown:
        file = files.get((document.source, document.origin))
        if json_lines:
            about = {"status": "kept" if isinstance(document, Kept) else "dropped"} | asdict(document)
            on_text(json.dumps(about | {"file": asdict(file) if file else None}, ensure_ascii=False) + "\n")
        else:
            on_text(visible("\n".join(_lines(document, file, card))) + "\n\n")
    if len(found) > config.limit and not json_lines:
        on_text(f"... and more; use --limit {config.limit * 5} to show more.\n")
    return shown


def _lines(document: Kept | DropRecord, file: SourceFile | None, card: dict[str, Any]) -> Iterator[str]:
    if isinstance(document, Kept):
        yield f"kept: {document.id}, row {document.row} of {document.shard}, {document.bytes:,} bytes"
        if document.copies > 1:
            yield f"  repeated {document.copies} times by the mixture"
    else:
        detail = f" ({' '.join(document.detail.split())})" if document.detail else ""
        yield f"dropped: {document.reason}{detail}, by the step {document.step}"
        if document.kept:
            yield f"  kept instead: {document.kept}"
    yield f"  from      {document.origin}"
    if file:
        yield f"  file      {file.path}, {file.bytes:,} bytes" + (f", {file.digest}" if file.digest else "")
    source: dict[str, Any] = next((each for each in card["sources"] if each["name"] == document.source), {})
    place = ", ".join(f"{key} {value}" for key, value in source.get("provenance", {}).items() if value)
    yield f"  source    {document.source}: license {source.get('license', 'unknown')}" + (f"; {place}" if place else "")
    if document.url:
        yield f"  url       {document.url}"
    if isinstance(document, Kept) and document.date:
        yield f"  date      {document.date}"
    if isinstance(document, Kept) and document.language:
        yield f"  language  {document.language} ({document.language_score:.2f})"
    if document.id and not isinstance(document, Kept):
        yield f"  id        {document.id}"
    if document.beginning.strip():
        yield f"  text      {' '.join(document.beginning.split())}"
