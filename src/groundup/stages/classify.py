"""`groundup classify`: the labels of texts, each as soon as its batch is done."""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from groundup.config import Config, setting
from groundup.console import Console, visible


class ClassifyConfig(Config):
    """Which classifier, and what to label: the texts given, else the lines of standard input."""

    model: Path = setting(help="classifier's directory, or a run (its newest classifier)", positional=True)
    texts: tuple[str, ...] = setting((), help="texts to label; without any, lines from standard input", positional=True)
    batch_size: int = setting(32, help="texts to label at a time; 1 answers each line at once", flag=True, gt=0)
    base: Path | None = setting(None, help="where an adapter's base lies now", flag=True)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one", flag=True)


@dataclass(frozen=True, slots=True)
class Classified:
    """A text with its label.

    Attributes:
        labels: those that it gets: one, unless `several`.
        label: the likeliest; of a model that gives several, all that are likelier than not, ", " between them.
        probabilities: of each label, in the order of the model's labels.
        several: the model gives several labels, or none.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    labels: tuple[str, ...] = ()
    several: bool = False

    def to_line(self, *, as_json: bool = False) -> str:
        """One line: label, its probability and the text between tabs, or a JSON object."""
        if as_json:
            said = {"labels": self.labels} if self.several else {"label": self.label}
            fields = {"text": self.text, **said, "probabilities": self.probabilities}
            return json.dumps(fields, ensure_ascii=False) + "\n"
        text = " ".join(self.text.split())
        labels = self.labels if self.several else (self.label,)
        shown = f"{min(self.probabilities[label] for label in labels):.3f}" if labels else ""
        return visible(f"{self.label}\t{shown}\t{text}") + "\n"


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
        lines: what to label where the config has no texts; by default the lines of standard input, the empty ones left
            out.

    Raises:
        DataError: no classifier there.
        FormatError: a damaged one.
    """
    from groundup.checkpoint.resolve import open_classifier
    from groundup.objectives.classification import encode, likely, predict

    console = console or Console()
    opened = open_classifier(config.model, device=config.device, base=config.base)
    tokenizer = opened.tokenizer
    source = _standard_input() if lines is None else lines
    given = config.texts or (line for raw in source if (line := raw.rstrip("\r\n")).strip())
    kept: list[Classified] = []
    cut = 0
    for batch in _batched(given, config.batch_size):
        texts, longer = encode(tokenizer, batch, opened.longest)
        cut += longer
        for text, probabilities in zip(batch, predict(opened.model, texts, pad_id=tokenizer.pad_id), strict=True):
            named = dict(zip(opened.labels, probabilities.tolist(), strict=True))
            several = opened.model.several
            chosen = likely(probabilities).nonzero()[0] if several else [probabilities.argmax()]
            given_labels = tuple(opened.labels[int(place)] for place in chosen)
            found = Classified(text, ", ".join(given_labels), named, given_labels, several)
            if on_text is None:
                kept.append(found)
            else:
                on_text(found.to_line(as_json=json_lines))
    if cut:
        which = "1 text is" if cut == 1 else f"{cut:,} texts are"
        console.warn(
            f"{which} longer than the {opened.longest} tokens that this classifier reads: the end was left out."
        )
    return kept


def _standard_input() -> TextIO:
    if isinstance(sys.stdin, io.TextIOWrapper):  # a line that is not UTF-8 must not end the stream
        sys.stdin.reconfigure(errors="replace")
    return sys.stdin


def _batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
