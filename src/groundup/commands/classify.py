"""`groundup classify`: the labels of texts, or of every row of a table."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.files import atomic_file
from groundup.core.types import is_blank

if TYPE_CHECKING:
    from groundup.inference.classification import Classified, Classifier

EXAMPLE = 'groundup classify runs/quickstart "What a wonderful day"'


class ClassifyConfig(Config):
    """Which classifier, and what to label: texts, a table, or the lines of standard input."""

    model: Path = setting(help="classifier's directory, or a run (its newest classifier)", positional=True)
    texts: tuple[str, ...] = setting((), help="texts to label; without any, lines from standard input", positional=True)
    batch: Path | None = setting(None, help="a table (CSV, JSON lines, ...): one result a row", flag=True)
    out: Path | None = setting(None, help="where the results of --batch go: .jsonl or .csv", flag=True)
    text: str | None = setting(None, help="column of --batch with the text, or a template; default: found", flag=True)
    batch_size: int = setting(32, help="texts to label at a time; 1 answers each line at once", flag=True, gt=0)
    base: Path | None = setting(None, help="where an adapter's base lies now", flag=True)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one", flag=True)


def run(
    config: ClassifyConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
    lines: Iterable[str] | None = None,
) -> list[Classified]:
    """Label texts; `on_text` receives a line for each, batch by batch.

    Args:
        on_text: with it nothing is kept and the returned list is empty, so that input may be endless.
        json_lines: a line is a JSON object.
        lines: what to label where the config has neither texts nor a table; by default the lines of standard input,
            without those that have no visible character.

    Raises:
        ConfigError: texts and a table, or a column that is not there.
        DataError: no classifier, no table, or a text without a visible character.
        FormatError: a damaged classifier.
    """
    from groundup.data.labeled import read_unlabeled_texts
    from groundup.hub.resolve import open_classifier
    from groundup.inference.classification import Classifier

    console = console or Console()
    _require_one_input(config)
    rows, texts = read_unlabeled_texts(config.batch, config.text, console) if config.batch else ([], [])
    classifier = Classifier(open_classifier(config.model, device=config.device, base=config.base))
    if config.batch:
        found = classifier.classify_rows(texts, config.batch_size, console)
        _write_table(rows, found, config.out, on_text, console)
        kept = [each for each in found if each is not None]
    else:
        source = _standard_input() if lines is None else lines
        given = config.texts or (line for raw in source if not is_blank(line := raw.rstrip("\r\n")))
        kept = _classify_lines(classifier, _batched(given, config.batch_size), on_text, json_lines)
    classifier.report(console)
    return kept


def _classify_lines(
    classifier: Classifier, batches: Iterable[list[str]], on_text: Callable[[str], None] | None, json_lines: bool
) -> list[Classified]:
    kept: list[Classified] = []
    for batch in batches:
        for each in classifier.classify(batch):
            if on_text is None:
                kept.append(each)
            else:
                on_text(each.to_line(as_json=json_lines))
    return kept


def _write_table(
    rows: Sequence[dict[str, Any]],
    found: Sequence[Classified | None],
    out: Path | None,
    on_text: Callable[[str], None] | None,
    console: Console,
) -> None:
    from groundup.apps.files import classified_lines

    lines = classified_lines(rows, found, as_csv=out is not None and out.suffix == ".csv")
    if out is not None:
        with atomic_file(out) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        console.note(f"{out}: {len(rows):,} rows")
    elif on_text is not None:
        for line in lines:
            on_text(line)


def _require_one_input(config: ClassifyConfig) -> None:
    for number, text in enumerate(config.texts, 1):
        if is_blank(text):
            raise DataError(
                f"text {number} = {text!r}",
                rule="a text to label has a visible character",
                fix="Give a text, or leave it out.",
            )
    if config.batch is not None and config.texts:
        raise ConfigError("texts and --batch", rule="one of them says what to label", fix="Leave one of them out.")
    if config.batch is None and (config.out or config.text):
        given = "--out" if config.out else "--text"
        raise ConfigError(
            f"{given} without --batch", rule=f"{given} belongs to a table", fix="Give a table: --batch FILE."
        )


def _standard_input() -> TextIO:
    if isinstance(sys.stdin, io.TextIOWrapper):  # a line that is not UTF-8 must not end the stream
        sys.stdin.reconfigure(errors="replace")
    return sys.stdin


def _batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
