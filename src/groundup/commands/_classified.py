"""A classifier that labels texts and tables, with the novelty of each text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.core.console import Console, visible
from groundup.core.files import atomic_file
from groundup.core.types import is_blank

if TYPE_CHECKING:
    from groundup.hub.resolve import OpenedClassifier
    from groundup.train.objectives.novelty import Novelty, Unlike

NO_TEXT = "no text: the cell is empty"


@dataclass(frozen=True, slots=True)
class Classified:
    """A text with its label.

    Attributes:
        label: the most likely label; of a model with several labels per text all above 50 %, ", " between them.
        probabilities: of each label, in the order of the model's labels.
        labels: those that the text gets: one, unless `several`.
        several: the model gives several labels per text, or none.
        novelty: how unlike the training texts the text is, see `groundup.train.objectives.novelty`; None: not known.
        unlike: whether it is flagged as unlike them.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    labels: tuple[str, ...] = ()
    several: bool = False
    novelty: float | None = None
    unlike: bool | None = None

    @property
    def probability(self) -> float | None:
        """That of the label; the lowest of several labels; None if the text gets no label."""
        labels = self.labels if self.several else (self.label,)
        return min((self.probabilities[label] for label in labels), default=None)

    def to_line(self, *, as_json: bool = False) -> str:
        """One line: label, its probability, novelty and the text between tabs, or a JSON object."""
        if as_json:
            found = {"labels": self.labels} if self.several else {"label": self.label}
            novel = {"novelty": self.novelty, "unlike": self.unlike}
            return (
                json.dumps(
                    {"text": self.text, **found, "probabilities": self.probabilities, **novel}, ensure_ascii=False
                )
                + "\n"
            )
        probability = "" if self.probability is None else f"{self.probability:.3f}"
        novelty = "" if self.novelty is None else f"{self.novelty:.2f}{' unlike' if self.unlike else ''}"
        return visible(f"{self.label}\t{probability}\t{novelty}\t{' '.join(self.text.split())}") + "\n"

    def to_cells(self, *, nested: bool) -> dict[str, Any]:
        """The columns that a table gets.

        Args:
            nested: cells may hold lists and mappings.
        """
        label = list(self.labels) if self.several and nested else self.label
        cells = {"label": label, "probability": self.probability, "novelty": self.novelty, "unlike": self.unlike}
        return cells | ({"probabilities": self.probabilities} if nested else {})


class Classifier:
    """A classifier that counts what a user should know of the texts that it labels."""

    def __init__(self, opened: OpenedClassifier) -> None:
        from groundup.train.objectives.novelty import Novelty

        self._opened = opened
        self._novelty: Novelty | None = Novelty.load(opened.directory)
        self._texts = self._cut = self._unlike = 0

    def classify(self, texts: Sequence[str]) -> list[Classified]:
        """Label texts, each with a visible character."""
        from groundup.train.objectives.classification import encode, predict

        opened, tokenizer = self._opened, self._opened.tokenizer
        ids, cut = encode(tokenizer, texts, opened.longest)
        shares_EC = predict(opened.model, ids, pad_id=tokenizer.pad_id)
        found = [
            self._classified(text, dict(zip(opened.labels, shares_C.tolist(), strict=True)))
            for text, shares_C in zip(texts, shares_EC, strict=True)
        ]
        self._texts += len(texts)
        self._cut += cut
        self._unlike += sum(each.unlike is True for each in found)
        return found

    def _classified(self, text: str, probabilities: dict[str, float]) -> Classified:
        from groundup.train.objectives.classification import likely

        several = self._opened.model.several
        most = max(probabilities, key=lambda label: probabilities[label])
        fitting = likely(np.array([*probabilities.values()]))
        labels = tuple(itertools.compress(probabilities, fitting)) if several else (most,)
        novel: Unlike | None = self._novelty.of(text) if self._novelty else None
        novelty, unlike = (novel.novelty, novel.unlike) if novel else (None, None)
        return Classified(text, ", ".join(labels), probabilities, labels, several, novelty, unlike)

    def report(self, console: Console) -> None:
        """Say how many texts were cut, and how many are unlike the training texts."""
        from groundup.train.objectives.novelty import NO_NOVELTY, UNLIKE

        if self._cut:
            which = "1 text is" if self._cut == 1 else f"{self._cut:,} texts are"
            longest = self._opened.longest
            console.warn(f"{which} longer than the {longest} tokens that this classifier reads: the end was left out.")
        if self._novelty is None:
            console.note(NO_NOVELTY)
        elif self._unlike:
            console.warn(f"{self._unlike:,} of {self._texts:,} texts have a novelty above 1: {UNLIKE}")


def read_texts(batch: Path, text: str | None, console: Console) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a table, and the text of each.

    Raises:
        ConfigError: a column that is not there.
        DataError: no table, or no column with text.
    """
    from groundup.data import read_table
    from groundup.data.label_columns import text_column
    from groundup.data.labelled import text_reader

    table = read_table(batch, console=console)
    column = text or text_column(table, taken="")
    read = text_reader(table, column)
    console.note(f"{table.name}: {len(table.rows):,} rows, texts from {column}.")
    return table.rows, [read(row) for row in table.rows]


def classify_table(
    classifier: Classifier, rows: Sequence[dict[str, Any]], texts: Sequence[str], size: int, console: Console
) -> list[Classified | None]:
    """Label the rows of a table; None for a row without text."""
    found: list[Classified | None] = [None] * len(rows)
    filled = [place for place, text in enumerate(texts) if not is_blank(text)]
    with console.progress("classifying", len(rows), "rows") as bar:
        bar.advance(len(rows) - len(filled))
        for start in range(0, len(filled), size):
            places = filled[start : start + size]
            for place, each in zip(places, classifier.classify([texts[place] for place in places]), strict=True):
                found[place] = each
            bar.advance(len(places))
    if len(filled) < len(rows):
        console.warn(f"{len(rows) - len(filled):,} of {len(rows):,} rows have no text: they get no label.")
    return found


def write_table(
    rows: Sequence[dict[str, Any]],
    found: Sequence[Classified | None],
    out: Path | None,
    on_text: Callable[[str], None] | None,
    console: Console,
) -> None:
    """Write all rows with the columns label, probability, novelty and unlike; a column of that name gets a prefix."""
    from groundup.apps.reading import table_lines

    as_csv = out is not None and out.suffix == ".csv"
    names = {column for row in rows for column in row}

    def cells(each: Classified | None) -> dict[str, Any]:
        new = {"label": None, "error": NO_TEXT} if each is None else each.to_cells(nested=not as_csv)
        return {f"predicted_{name}" if name in names else name: value for name, value in new.items()}

    lines = table_lines([row | cells(each) for row, each in zip(rows, found, strict=True)], as_csv=as_csv)
    if out is None:
        for line in lines:
            if on_text is not None:
                on_text(line)
        return
    with atomic_file(out) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    console.note(f"{out}: {len(rows):,} rows")
