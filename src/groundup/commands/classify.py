"""`groundup classify`: classify texts or the rows of a table."""

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
from groundup.core.plural import pluralize
from groundup.core.types import is_blank

if TYPE_CHECKING:
    from groundup.inference.classification import Classified, Classifier

EXAMPLE = 'groundup classify runs/quickstart "What a wonderful day"'


class ClassifyConfig(Config):
    """Settings of `groundup classify`."""

    model: Path = setting(help="Classifier directory, or a run (its newest classifier)", positional=True)
    texts: tuple[str, ...] = setting(
        (), help="Texts to classify; default: each line of standard input", positional=True
    )
    batch: Path | None = setting(None, help="Table (CSV, JSONL, ...) to classify, one text per row", flag=True)
    out: Path | None = setting(None, help="File for the results of --batch: .jsonl or .csv", flag=True)
    text: str | None = setting(
        None, help="Column of the table that contains the text, or a template; default: detected", flag=True
    )
    batch_size: int = setting(
        32, help="Number of texts per batch; with 1, each result is printed immediately", flag=True, gt=0
    )
    base: Path | None = setting(None, help="Base model of an adapter, if it was moved", flag=True)
    device: str | None = setting(None, help="Device, such as cpu or cuda; default: a GPU if available", flag=True)


def run(
    config: ClassifyConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
    lines: Iterable[str] | None = None,
) -> list[Classified]:
    """Classify texts in batches.

    Args:
        config: Settings of the command.
        console: Console for messages.
        on_text: Function that is called with each line of results. If it is given, the returned list is empty, so that
            the input can be endless.
        json_lines: Whether to print one JSON object per line.
        lines: Texts to classify if the config contains neither texts nor a table. Blank lines are skipped. Default: the
            lines of standard input.

    Returns:
        The results, or an empty list if `on_text` is given.

    Raises:
        ConfigError: Both texts and a table are given, or a column does not exist.
        DataError: The classifier or the table does not exist, or a text is blank.
        FormatError: A file of the classifier is damaged.
    """
    from groundup.data.labels.reading import read_unlabeled_texts
    from groundup.hub.loading import open_classifier
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
        console.note(f"{out}: {pluralize(len(rows), 'row')}")
    elif on_text is not None:
        for line in lines:
            on_text(line)


def _require_one_input(config: ClassifyConfig) -> None:
    for number, text in enumerate(config.texts, 1):
        if is_blank(text):
            raise DataError(
                f"text {number} is blank: {text!r}",
                fix="Give a text with visible characters, or remove it.",
            )
    if config.batch is not None and config.texts:
        raise ConfigError("both texts and --batch", fix="Give either texts or --batch.")
    if config.batch is None and (config.out or config.text):
        given = "--out" if config.out else "--text"
        raise ConfigError(f"{given} requires --batch", fix="Give a table: --batch FILE.")


def _standard_input() -> TextIO:
    if isinstance(sys.stdin, io.TextIOWrapper):  # invalid UTF-8 must not stop the reading of input
        sys.stdin.reconfigure(errors="replace")
    return sys.stdin


def _batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
