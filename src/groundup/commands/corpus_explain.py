"""`groundup corpus explain`: why one document of a corpus was kept or dropped."""

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
from groundup.corpus.ledger import Fate
from groundup.corpus.lookup import Kept
from groundup.corpus.manifest import SourceFile

EXAMPLE = "groundup corpus explain runs/quickstart/corpus miltondata"


class CorpusExplainConfig(Config):
    """A corpus, and a document that it has or might have had."""

    corpus: Path = setting(help="what groundup collect left", positional=True)
    document: str = setting(help="its id, or a part of its file's name or of its URL", positional=True)
    most: int = setting(20, help="show at most this many documents", ge=1, flag=True)


def run(
    config: CorpusExplainConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[Kept | Fate]:
    """What became of the documents so called; `on_text` receives it for people, or as one JSON object a line.

    Raises:
        DataError: no corpus there, or it has met no such document.
    """
    from groundup.core.artifact import require_intact
    from groundup.corpus import read_card
    from groundup.corpus.lookup import fates_of
    from groundup.corpus.manifest import files_of

    require_intact(config.corpus)
    card = read_card(config.corpus)
    found = list(islice(fates_of(config.corpus, config.document), config.most + 1))
    if not found:
        raise DataError(
            f"{config.document}: not in {config.corpus}, and not among what was dropped",
            rule="a document is named by its id, or by a part of its file's name or of its URL",
            fix="groundup corpus search CORPUS TEXT finds documents by what they say.",
        )
    shown = found[: config.most]
    if on_text is None:
        return shown
    files = files_of(config.corpus, ((fate.source, fate.origin) for fate in shown))
    for fate in shown:
        file = files.get((fate.source, fate.origin))
        if json_lines:
            about = {"fate": "kept" if isinstance(fate, Kept) else "dropped"} | asdict(fate)
            on_text(json.dumps(about | {"file": asdict(file) if file else None}, ensure_ascii=False) + "\n")
        else:
            on_text(visible("\n".join(_lines(fate, file, card))) + "\n\n")
    if len(found) > config.most and not json_lines:
        on_text(f"... and more; --most {config.most * 5} shows more of them.\n")
    return shown


def _lines(fate: Kept | Fate, file: SourceFile | None, card: dict[str, Any]) -> Iterator[str]:
    if isinstance(fate, Kept):
        yield f"kept: {fate.id}, row {fate.row} of {fate.shard}, {fate.bytes:,} bytes"
        if fate.copies > 1:
            yield f"  there {fate.copies} times, as the mixture wants it"
    else:
        detail = f" ({' '.join(fate.detail.split())})" if fate.detail else ""
        yield f"dropped: {fate.reason}{detail}, at the step {fate.step}"
        if fate.kept:
            yield f"  in its place stays {fate.kept}"
    yield f"  from      {fate.origin}"
    if file:
        yield f"  file      {file.path}, {file.bytes:,} bytes" + (f", {file.digest}" if file.digest else "")
    source: dict[str, Any] = next((each for each in card["sources"] if each["name"] == fate.source), {})
    place = ", ".join(f"{key} {value}" for key, value in source.get("provenance", {}).items() if value)
    yield f"  source    {fate.source}: {source.get('licence', 'unknown')} licence" + (f"; {place}" if place else "")
    if fate.url:
        yield f"  address   {fate.url}"
    if isinstance(fate, Kept) and fate.date:
        yield f"  date      {fate.date}"
    if isinstance(fate, Kept) and fate.language:
        yield f"  language  {fate.language} ({fate.language_score:.2f})"
    if fate.id and not isinstance(fate, Kept):
        yield f"  id        {fate.id}"
    if fate.beginning.strip():
        yield f"  text      {' '.join(fate.beginning.split())}"
