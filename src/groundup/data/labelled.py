"""Texts with labels, out of a table: which columns they are in, and what is dropped."""

from __future__ import annotations

import ast
import bisect
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from groundup.core.config import nearest
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.corpus.records import FIELD
from groundup.data.columns import fill
from groundup.data.tables import Table, alike, cell_text, read_table, spread

# Names that people give to the two, the most telling first.
_TEXT_NAMES = (
    "text", "sentence", "content", "body", "document", "review", "comment", "tweet", "post", "message", "utterance",
    "query", "question", "email", "mail", "sms", "description", "article", "passage", "input", "title", "headline",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labels", "class", "category", "categories", "target", "intent", "topic", "sentiment", "polarity", "genre",
    "emotion", "tag", "stars", "rating", "score", "grade", "output", "type", "group", "y",
)  # fmt: skip
# What has few values and is no label: where a row comes from, in which language it is, which part it belongs to.
_OTHER_NAMES = (
    "id", "index", "idx", "split", "fold", "lang", "language", "locale", "source", "domain", "date", "year", "month",
    "time", "author", "user", "annotator", "country", "file", "url", "license", "licence", "version", "confidence",
)  # fmt: skip
_SAMPLE = 10_000  # rows that decide, from everywhere


def text_column(table: Table, *, taken: str) -> str:
    """The column with the text: one with a telling name, else the one whose strings are longest.

    Args:
        taken: the column with the label.

    Raises:
        DataError: no column of strings is left.
    """
    length: Counter[str] = Counter()
    for row in spread(table.rows, _SAMPLE):
        for name, value in row.items():
            if name != taken and isinstance(value, str):
                length[name] += len(value.strip())
    length = +length
    if not length:
        raise _not_found(table, "text", 'Say where it is: text = "COLUMN", or a template: text = "{subject}\\n{body}".')
    longest = max(length.values())
    # A title beside a body is no text to learn from, whatever its name; nor is an id called "text".
    named = [name for name in _by_name(length, _TEXT_NAMES) if length[name] * 10 >= longest]
    return named[0] if named else max(length, key=lambda name: length[name])


def label_column(table: Table, named: str | None, *, taken: Collection[str], numbers: bool) -> str:
    """The column with the label: `named`, else one with a telling name, else the only one with few values.

    Args:
        taken: columns that are text.
        numbers: the label is made of numbers, of which there may be many.

    Raises:
        ConfigError: `named` is no column.
        DataError: none, or several, could be it; the message lists them.
    """
    if named is not None:
        if named not in table.columns:
            match = nearest(named, table.columns)
            raise ConfigError(
                f"label = {named!r}",
                rule=f"{table.name} has the columns {', '.join(table.columns[:20])}",
                fix=f"Did you mean {match!r}?" if match else "Name one of them.",
            )
        return named
    values = {name: _values(table, name) for name in table.columns if name not in taken}
    usable = [name for name, counts in values.items() if numbers or _may_be_labels(counts)]
    single = next(
        (name for name in values if name.strip().lower() in ("label", "labels") and len(values[name]) == 1), ""
    )
    if single and not numbers:
        raise DataError(
            f"{table.name}: every label in {single!r} is {next(iter(values[single]))[:40]!r}",
            rule="a classifier needs two labels or more",
            fix='Give examples of others, too, or name another column: label = "COLUMN".',
        )
    by_name = _by_name(usable, _LABEL_NAMES)
    if by_name:
        return by_name[0]
    others = _by_name(usable, _OTHER_NAMES)
    likely = [name for name in usable if name not in others] or others
    if len(likely) == 1:
        return likely[0]
    if not likely:
        raise _not_found(table, "label (2 values or more, each on several rows)", 'Say where it is: label = "COLUMN".')
    raise DataError(
        f"{table.name}: " + ", ".join(f"{name!r} ({len(values[name])} values)" for name in likely[:8]),
        rule="each of these columns could hold the label",
        fix=f"Say which: label = {likely[0]!r}.",
    )


def _values(table: Table, name: str) -> Counter[str]:
    cells = (row.get(name) for row in spread(table.rows, _SAMPLE))
    return Counter(text for cell in cells if (text := cell_text(_only(cell))))


def _only(cell: Any) -> Any:
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def _may_be_labels(counts: Counter[str]) -> bool:
    """Few values on many rows, and names rather than prose."""
    rows = counts.total()
    return 2 <= len(counts) <= max(2, rows // 2) and sum(map(len, counts)) <= 100 * len(counts)


def _by_name(columns: Collection[str], telling: tuple[str, ...]) -> list[str]:
    """The columns with a telling name: exactly it before it as a word of the name, and the more telling first."""
    words = {name: [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)] for name in columns}
    exact = [name for word in telling for name in columns if name.strip().lower() == word]
    within = [name for word in telling for name in columns if word in words[name]]
    return list(dict.fromkeys(exact + within))


def _not_found(table: Table, what: str, fix: str) -> DataError:
    return DataError(
        f"{table.name}: no column that looks like a {what}",
        rule=f"its columns are {', '.join(table.columns[:20])}",
        fix=fix,
    )


SEPARATOR = "\x1f"  # between the labels of one text: ASCII's separator of units, which nobody types
SEVERAL_LABELS = "several labels"
EMPTY_TEXT, EMPTY_LABEL, NO_NUMBER = "empty text", "empty label", "score that is no number"
REPEATED, CONTRADICTED = "repeated text", "repeated text with another label"
NOT_LEARNED = "label not learned"
SINGLE = "only example of its label"

_MISSING = {"", "n/a", "#n/a", "<na>", "nan", "null"}  # as spreadsheets and pandas write a cell without a value
_UNBALANCED = 10  # times as many texts of the most frequent label as of the rarest
_LONGEST_LIST = 10_000  # characters of a cell
_MOST_SCORES = 20  # distinct numbers, some with a fraction, beyond which a column holds scores and no labels


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts and the label of each.

    Attributes:
        labels: of each text its label, or where there are several `SEPARATOR` between their names.
        columns: how the table was read, as a sentence for the user.
        dropped: reason -> rows left out.
        multi_label: a text may have several labels.
    """

    texts: list[str]
    labels: list[str]
    columns: str = ""
    dropped: Counter[str] = field(default_factory=Counter)
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """Examples of each label, the most frequent first."""
        counts = Counter(label for labels in self.sets for label in labels)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def sets(self) -> list[tuple[str, ...]]:
        """All labels of each text."""
        return [tuple(label.split(SEPARATOR)) if self.multi_label else (label,) for label in self.labels]

    def only(self, keep: Iterable[int]) -> Labelled:
        """The examples at these places."""
        chosen = list(keep)
        texts, labels = [self.texts[i] for i in chosen], [self.labels[i] for i in chosen]
        return Labelled(texts, labels, self.columns, multi_label=self.multi_label)

    def dropping(self, keep: Iterable[int], reason: str) -> Labelled:
        """The examples at these places; the others are counted as dropped, beside those that were before."""
        kept = self.only(keep)
        dropped = Counter(self.dropped)
        dropped[reason] += len(self) - len(kept)
        return replace(kept, dropped=+dropped)


@dataclass(frozen=True, slots=True)
class LabelRules:
    """Where text and label are (see `FinetuneClassifyConfig`); None: they are looked for.

    Attributes:
        text: a column, or a template like "{subject}\\n{body}".
        label: a column.
        bins: thresholds that cut a column of numbers into len(bins) + 1 labels; a number equal to one is above it.
        bin_names: names of these labels, from low to high; by default the ranges.
        merged: label in the table -> label that it counts as; others stay.
        after: what stands before a text up to and with this, such as the blank line after a mail's head, is left out.
        separator: what stands between the labels of a text, where one cell names several; lists need none.
    """

    text: str | None = None
    label: str | None = None
    bins: tuple[float, ...] = ()
    bin_names: tuple[str, ...] = ()
    merged: Mapping[str, str] = field(default_factory=dict)
    after: str = ""
    separator: str | None = None

    def found_in(self, table: Table) -> LabelRules:
        """The same with both columns named.

        Raises:
            ConfigError: the label's column is not there.
            DataError: no columns that can be text and label.
        """
        label = label_column(table, self.label, taken=_named_in(self.text), numbers=bool(self.bins))
        return replace(self, label=label, text=self.text or text_column(table, taken=label))


def read_labelled(table: Table, rules: LabelRules) -> Labelled:
    """The usable rows of a table.

    Labels are strings, integers or booleans, as text; numbers with `bins`. White space around texts and labels is
    dropped. What has no text or no label is left out and counted.

    Raises:
        ConfigError: a key names a column that is not there, or bins are no thresholds.
        DataError: no columns that can be text and label, scores without bins, no usable row.
    """
    rules = rules.found_in(table)
    template, label = str(rules.text), str(rules.label)
    read_text = text_reader(table, template)
    multi_label = bool(rules.separator) or _are_sets([row.get(label) for row in table.rows])
    read_label = _several(rules.separator) if multi_label else _label_reader(table, label, rules)
    texts, labels, dropped = [], [], Counter[str]()
    for row in table.rows:
        text, (value, reason) = read_text(row), read_label(row.get(label))
        text = text.partition(rules.after)[2].strip() if rules.after and rules.after in text else text
        if multi_label:
            value = SEPARATOR.join(sorted({rules.merged.get(name, name) for name in value.split(SEPARATOR)}))
        else:
            value = rules.merged.get(value, value)
        if not text:
            dropped[EMPTY_TEXT] += 1
        elif reason:
            dropped[reason] += 1
        else:
            texts.append(text)
            labels.append(value)
    if not texts:
        raise DataError(
            f"{table.name}: none of {len(table.rows):,} rows has both a text ({template}) and a label ({label})",
            rule="an example is a text with its label",
            fix="Say which columns they are in: text = ..., label = ...",
        )
    return Labelled(texts, labels, f"{template} -> {label}", dropped, multi_label)


def without_repeats(examples: Labelled) -> Labelled:
    """Each text once, with the label that it has first. Texts that differ in case or white space only are alike."""
    first: dict[str, int] = {}
    dropped = Counter(examples.dropped)
    for place, text in enumerate(examples.texts):
        known = first.setdefault(alike(text), place)
        if known != place:
            dropped[REPEATED if examples.labels[known] == examples.labels[place] else CONTRADICTED] += 1
    kept = examples.only(first.values())
    return replace(kept, dropped=dropped)


def without_single_labels(examples: Labelled) -> Labelled:
    """Leave out labels with one example: from one, nothing can be both learned and tested.

    Raises:
        DataError: fewer than two labels are left.
    """
    kept = with_labels(examples, {label for label, count in examples.counts().items() if count > 1}, SINGLE)
    if len(kept.counts()) < 2:
        found = ", ".join(f"{label[:40]!r} ({count})" for label, count in list(examples.counts().items())[:8])
        raise DataError(
            f"{examples.columns}: the labels are {found or 'none'}",
            rule="a classifier needs two labels or more, each with at least 2 different texts",
            fix="Give more examples, or name another column: label = ...",
        )
    return kept


def with_labels(examples: Labelled, known: Collection[str], reason: str) -> Labelled:
    """The examples with these labels; of several labels the others are taken away, and who has none left is dropped."""
    labels = [SEPARATOR.join(label for label in labels if label in known) for labels in examples.sets]
    return replace(examples, labels=labels).dropping((i for i, label in enumerate(labels) if label), reason)


def spelled_apart(examples: Labelled) -> str:
    """What to know where labels differ in case only; "" where none do."""
    alike: dict[str, list[str]] = {}
    for label in examples.counts():
        alike.setdefault(label.casefold(), []).append(label)
    for most, *others in (labels for labels in alike.values() if len(labels) > 1):
        pairs = ", ".join(f'"{other}" = "{most}"' for other in others)
        return f"{most!r} and {others[0]!r} are two labels. If they are one: --set 'merge={{{pairs}}}'."
    return ""


def imbalance(examples: Labelled) -> str:
    """What to know where some labels have many more texts than others; "" where that is not so."""
    counts = examples.counts()
    (most, many), *_, (least, few) = counts.items()
    if many < _UNBALANCED * few:
        return ""
    few_said = f"{few:,} text" + "s" * (few != 1)
    return (
        f"{most[:40]!r} has {many:,} texts to learn from, {least[:40]!r} has {few_said}: rare labels are predicted "
        "seldom. balance = true lets all labels count alike; look at macro-F1 more than at accuracy."
    )


def _named_in(text: str | None) -> frozenset[str]:
    return frozenset(FIELD.findall(text) or [text]) if text else frozenset()


def text_reader(table: Table, text: str) -> Callable[[dict[str, Any]], str]:
    """A function from a row to its text.

    Args:
        text: a column, or a template such as "{subject}\\n{body}".

    Raises:
        ConfigError: a column that is not there.
    """
    if text in table.columns:
        return lambda row: cell_text(row.get(text))
    fields = FIELD.findall(text)
    missing = [
        name for name in fields or [text] if name.split(".")[0] not in table.columns and name not in table.columns
    ]
    if missing:
        raise ConfigError(
            f"text = {text!r}",
            rule=f"{table.name} has no column {missing[0]!r}; it has {', '.join(table.columns[:20])}",
            fix='Name a column, or write a template such as "{subject}\\n{body}".',
        )
    template = text.replace("\\n", "\n")  # a shell hands on the two characters
    return lambda row: fill(template, row)


def read_texts(data: Path, text: str | None, console: Console) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a table of texts without labels.

    Args:
        text: a column, or a template; None: the column is looked for.

    Returns:
        The rows, and the text of each.

    Raises:
        ConfigError: a column that is not there.
        DataError: no table, or no column with text.
    """
    table = read_table(data, console=console)
    column = text or text_column(table, taken="")
    read = text_reader(table, column)
    console.note(f"{table.name}: {len(table.rows):,} rows, texts from {column}.")
    return table.rows, [read(row) for row in table.rows]


def _label_reader(table: Table, column: str, rules: LabelRules) -> Callable[[Any], tuple[str, str]]:
    """A function from a cell to (label, ""), or to ("", why there is none)."""
    if rules.bins:
        return _binned(rules)
    values = [row.get(column) for row in table.rows]
    numbers = {number for value in values if (number := _number(value)) is not None}
    written = sum(bool(cell_text(value)) for value in values)
    if (
        len(numbers) > _MOST_SCORES
        and any(n % 1 for n in numbers)
        and sum(_number(v) is not None for v in values) == written
    ):
        low, high = min(numbers), max(numbers)
        raise DataError(
            f"{table.name}: column {column!r} holds {len(numbers):,} different numbers from {low:g} to {high:g}",
            rule="labels are a few names; scores must be cut into ranges first",
            fix=f"Say where: bins = [{(low + high) / 2:g}] makes two labels of them.",
        )
    return _plain


def _are_sets(cells: Sequence[Any]) -> bool:
    """Whether a column holds lists of labels; single lists among other values are mistakes."""
    lists = [listed for cell in cells if (listed := _listed(cell)) is not None]
    return 2 * len(lists) > len(cells) and any(sum(bool(_plain(each)[0]) for each in cell) > 1 for cell in lists)


def _listed(cell: Any) -> Sequence[Any] | None:
    """The list that a cell holds; in a CSV file it is written as Python or JSON does, "['a', 'b']"."""
    if isinstance(cell, list | tuple):
        return cell
    if not (isinstance(cell, str) and cell[:1] == "[" and cell[-1:] == "]" and len(cell) < _LONGEST_LIST):
        return None
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # brackets around something else
        return None
    return value if isinstance(value, list) and all(isinstance(each, str | int) for each in value) else None


def _several(separator: str | None) -> Callable[[Any], tuple[str, str]]:
    def read(value: Any) -> tuple[str, str]:
        listed = _listed(value)
        if listed is None:
            listed = cell_text(value).split(separator) if separator else [value]
        names = sorted({name.replace(SEPARATOR, " ") for each in listed if (name := _plain(each)[0])})
        return (SEPARATOR.join(names), "") if names else ("", EMPTY_LABEL)

    return read


def _plain(value: Any) -> tuple[str, str]:
    if (listed := _listed(value)) is not None:  # a list with one label is how some keep a label
        if len(listed) > 1:
            return "", SEVERAL_LABELS
        value = listed[0] if listed else None
    if isinstance(value, float) and value.is_integer():  # integers beside missing values become floats in pandas
        value = int(value)
    label = re.sub(r"\s+", " ", cell_text(value))
    return ("", EMPTY_LABEL) if label.lower() in _MISSING else (label, "")


def _binned(rules: LabelRules) -> Callable[[Any], tuple[str, str]]:
    edges = list(rules.bins)
    if edges != sorted(set(edges)) or (rules.bin_names and len(set(rules.bin_names)) != len(edges) + 1):
        raise ConfigError(
            f"bins = {edges}, bin_names = {list(rules.bin_names)}",
            rule="bins rise, and one name more than there are bins (all different) stands for the ranges between them",
            fix='For example: bins = [-0.5, 0.5], bin_names = ["negative", "neutral", "positive"].',
        )
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    names = rules.bin_names or (f"below {edges[0]:g}", *between, f"{edges[-1]:g} or more")

    def read(value: Any) -> tuple[str, str]:
        if not cell_text(value):
            return "", EMPTY_LABEL
        number = _number(value)
        return ("", NO_NUMBER) if number is None else (names[bisect.bisect_right(edges, number)], "")

    return read


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(cell_text(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def summary(table: Table, examples: Labelled) -> str:
    """How a table was read, in one sentence."""
    count = sum(examples.dropped.values())
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in examples.dropped.most_common())
    rows = "row" if count == 1 else "rows"
    dropped = f"{count:,} {rows} dropped: {reasons}" if count else "no row dropped"
    labels = examples.counts()
    return f"I read {len(table.rows):,} rows of {table.name} as {examples.columns}, {len(labels)} labels; {dropped}."
