"""`groundup corpus search`: where a string of a corpus came from."""

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
    """A corpus, and what to look for."""

    corpus: Path = setting(help="what groundup collect left", positional=True)
    text: str = setting(help="look for exactly this", positional=True)
    ignore_case: bool = setting(False, help="upper and lower case are the same", flag=True)
    most: int = setting(20, help="show at most this many documents", ge=1, flag=True)


def run(
    config: CorpusSearchConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[Match]:
    """The documents that have it; `on_text` receives them for people, or as one JSON object a line.

    Raises:
        ConfigError: nothing to look for.
        DataError: no corpus there.
    """
    from groundup.core.artifact import require_intact
    from groundup.corpus.lookup import occurrences

    if not config.text:
        raise ConfigError('TEXT is ""', rule="a search needs something to look for", fix="Give some words of the text.")
    require_intact(config.corpus)
    found = list(islice(occurrences(config.corpus, config.text, ignore_case=config.ignore_case), config.most + 1))
    shown = found[: config.most]
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
        on_text("In no document.\n")
    elif len(found) > config.most and not json_lines:
        on_text(f"... and more; --most {config.most * 5} shows more of them.\n")
    return shown
