"""`groundup corpus search`: find the documents of a corpus that contain a string."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from groundup.core.config import Config, setting
from groundup.core.console import Console, visible
from groundup.core.errors import ConfigError
from groundup.corpus.lookup import Match

EXAMPLE = 'groundup corpus search runs/quickstart/corpus "to be, or not to be"'


class CorpusSearchConfig(Config):
    """Settings of `groundup corpus search`."""

    corpus: Path = setting(help="output directory of groundup collect", positional=True)
    text: str = setting(help="string to search for", positional=True)
    ignore_case: bool = setting(False, help="ignore upper and lower case", flag=True)
    limit: int = setting(20, help="maximum number of documents to show", ge=1, flag=True)


def run(
    config: CorpusSearchConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[Match]:
    """Return the documents that contain the string.

    Args:
        config: Settings of the command.
        console: Console for messages; by default they are written to standard error.
        on_text: Called with each part of the output; by default the documents are returned but not written.
        json_lines: Whether to write one JSON object per line instead of text.

    Raises:
        ConfigError: The string is empty.
        DataError: The directory does not contain a corpus.
    """
    from groundup.core.artifact import require_intact
    from groundup.corpus.lookup import occurrences

    if not config.text:
        raise ConfigError('TEXT is ""', rule="a search requires a string", fix="Give some words of the text.")
    require_intact(config.corpus)
    found = list(islice(occurrences(config.corpus, config.text, ignore_case=config.ignore_case), config.limit + 1))
    shown = found[: config.limit]
    if on_text is None:
        return shown
    for match in shown:
        if json_lines:
            on_text(json.dumps(asdict(match), ensure_ascii=False) + "\n")
            continue
        document = match.document
        before, hit, after = (" ".join(f"|{part}|".split())[1:-1] for part in match.around)
        place = f"{document.origin} ({document.source})" + (f", {document.url}" if document.url else "")
        on_text(visible(f"{document.id}  {document.shard}  {place}\n    ...{before}[{hit}]{after}...") + "\n")
    if not shown and not json_lines:
        on_text("No document contains this text.\n")
    elif len(found) > config.limit and not json_lines:
        on_text(f"... and more; use --limit {config.limit * 5} to show more.\n")
    return shown
