"""Reader of labeled texts in a table, which detects the columns and counts the dropped rows."""

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
from groundup.core.plural import pluralize
from groundup.corpus.records import FIELD
from groundup.data.columns import fill
from groundup.data.tables import Table, cell_text, evenly_spaced, normalized_id, read_table

# Common names of the text column and of the label column. The most specific names come first.
_TEXT_NAMES = (
    "text", "sentence", "content", "body", "document", "review", "comment", "tweet", "post", "message", "utterance",
    "query", "question", "email", "mail", "sms", "description", "article", "passage", "input", "title", "headline",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labels", "class", "category", "categories", "target", "intent", "topic", "sentiment", "polarity", "genre",
    "emotion", "tag", "stars", "rating", "score", "grade", "output", "type", "group", "y",
)  # fmt: skip
# Names of columns that often have few distinct values but do not contain labels, such as languages and splits.
_OTHER_NAMES = (
    "id", "index", "idx", "split", "fold", "lang", "language", "locale", "source", "domain", "date", "year", "month",
    "time", "author", "user", "annotator", "country", "file", "url", "license", "licence", "version", "confidence",
)  # fmt: skip
_SAMPLE = 10_000  # Maximum number of evenly spaced rows from which columns are detected.


def text_column(table: Table, *, exclude: str) -> str:
    """Detect the column with the text, which is a column with a common name or the column with the longest strings.

    Args:
        table: The table.
        exclude: Name of the label column.

    Raises:
        DataError: None of the other columns contains strings.
    """
    length: Counter[str] = Counter()
    for row in evenly_spaced(table.rows, _SAMPLE):
        for name, value in row.items():
            if name != exclude and isinstance(value, str):
                length[name] += len(value.strip())
    length = +length
    if not length:
        raise _not_found(table, "text", 'Set text = "COLUMN", or a template: text = "{subject}\\n{body}".')
    longest = max(length.values())
    # A column with a common name is ignored if another column has much longer texts. Examples are a title next to a
    # body, or an id column named "text".
    named = [name for name in _by_name(length, _TEXT_NAMES) if length[name] * 10 >= longest]
    return named[0] if named else max(length, key=lambda name: length[name])


def label_column(table: Table, named: str | None, *, exclude: Collection[str], numbers: bool) -> str:
    """Return the label column that the user set, or detect it.

    The detected column has a common name, or it is the only column with few distinct values.

    Args:
        table: The table.
        named: Name of the column that the user set, or None to detect the column.
        exclude: Names of the columns with the text.
        numbers: Whether labels are derived from numbers, so that the column may have many distinct values.

    Raises:
        ConfigError: The column `named` does not exist.
        DataError: There is no column that could contain the labels, or there are several. The message lists them.
    """
    if named is not None:
        if named not in table.columns:
            match = nearest(named, table.columns)
            raise ConfigError(
                f"label = {named!r}: {table.name} has the columns {', '.join(table.columns[:20])}",
                fix=f"Did you mean {match!r}?" if match else "Set label to one of these columns.",
            )
        return named
    values = {name: _values(table, name) for name in table.columns if name not in exclude}
    usable = [name for name, counts in values.items() if numbers or _may_be_labels(counts)]
    single = next(
        (name for name in values if name.strip().lower() in ("label", "labels") and len(values[name]) == 1), ""
    )
    if single and not numbers:
        raise DataError(
            f"{table.name}: every label in {single!r} is {next(iter(values[single]))[:40]!r}",
            rule="a classifier needs at least two labels",
            fix='Add examples of other labels, or name another column: label = "COLUMN".',
        )
    by_name = _by_name(usable, _LABEL_NAMES)
    if by_name:
        return by_name[0]
    others = _by_name(usable, _OTHER_NAMES)
    likely = [name for name in usable if name not in others] or others
    if len(likely) == 1:
        return likely[0]
    if not likely:
        raise _not_found(table, "label (2 or more values, each in several rows)", 'Set label = "COLUMN".')
    raise DataError(
        f"{table.name}: several columns could contain the label: "
        + ", ".join(f"{name!r} ({len(values[name])} values)" for name in likely[:8]),
        fix=f"Choose one, e.g. label = {likely[0]!r}.",
    )


def _values(table: Table, name: str) -> Counter[str]:
    cells = (row.get(name) for row in evenly_spaced(table.rows, _SAMPLE))
    return Counter(text for cell in cells if (text := cell_text(_unwrapped(cell))))


def _unwrapped(cell: Any) -> Any:
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def _may_be_labels(counts: Counter[str]) -> bool:
    """Return whether the values of a column are short and recur often enough to be labels."""
    rows = counts.total()
    return 2 <= len(counts) <= max(2, rows // 2) and sum(map(len, counts)) <= 100 * len(counts)


def _by_name(columns: Collection[str], telling: tuple[str, ...]) -> list[str]:
    """Return the columns whose name is in `telling`, followed by the columns whose name contains such a word."""
    words = {name: [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)] for name in columns}
    exact = [name for word in telling for name in columns if name.strip().lower() == word]
    within = [name for word in telling for name in columns if word in words[name]]
    return list(dict.fromkeys(exact + within))


def _not_found(table: Table, what: str, fix: str) -> DataError:
    return DataError(
        f"{table.name}: no column looks like a {what}; the columns are {', '.join(table.columns[:20])}", fix=fix
    )


# Several labels of a text are joined by the ASCII unit separator, which does not occur in ordinary text.
SEPARATOR = "\x1f"
SEVERAL_LABELS = "several labels"
EMPTY_TEXT, EMPTY_LABEL, NO_NUMBER = "empty text", "empty label", "score that is not a number"
DUPLICATE, CONFLICTING_DUPLICATE = "duplicate", "duplicate with another label"
UNKNOWN_LABEL = "label that the classifier does not have"
SINGLE_EXAMPLE = "only example of its label"

_MISSING = {"", "n/a", "#n/a", "<na>", "nan", "null"}  # Notations of missing values in spreadsheets and pandas.
# A warning is printed if the most frequent label has at least this many times as many texts as the rarest label.
_UNBALANCED = 10
_MAX_LIST_CHARS = 10_000  # Longer cells are not parsed as lists.
_MAX_LABEL_NUMBERS = 20  # A column with more distinct numbers, some of which are fractions, contains scores.


@dataclass(frozen=True, slots=True)
class Labeled:
    """Texts with their labels.

    Attributes:
        texts: The texts.
        labels: Label of each text. If a text has several labels, they are joined by `SEPARATOR`.
        columns: Description of the columns that were read.
        dropped: Number of dropped rows for each reason.
        multi_label: Whether a text may have several labels.
    """

    texts: list[str]
    labels: list[str]
    columns: str = ""
    dropped: Counter[str] = field(default_factory=Counter)
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """Return the number of texts of each label, in descending order."""
        counts = Counter(label for labels in self.sets for label in labels)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def sets(self) -> list[tuple[str, ...]]:
        """Labels of each text as a tuple."""
        return [tuple(label.split(SEPARATOR)) if self.multi_label else (label,) for label in self.labels]

    def only(self, keep: Iterable[int]) -> Labeled:
        """Return the examples with the indices `keep`."""
        chosen = list(keep)
        texts, labels = [self.texts[i] for i in chosen], [self.labels[i] for i in chosen]
        return Labeled(texts, labels, self.columns, multi_label=self.multi_label)

    def dropping(self, keep: Iterable[int], reason: str) -> Labeled:
        """Return the examples with the indices `keep`. All other examples are counted as dropped for `reason`."""
        kept = self.only(keep)
        dropped = Counter(self.dropped)
        dropped[reason] += len(self) - len(kept)
        return replace(kept, dropped=+dropped)


@dataclass(frozen=True, slots=True)
class LabelOptions:
    r"""Columns and labels to read from a table.

    Attributes:
        text: Name of the text column, or a template such as "{subject}\n{body}"; default: the column is detected.
        label: Name of the label column; default: the column is detected.
        bins: Thresholds that split a numeric column into len(bins) + 1 labels. A value that equals a threshold belongs
            to the upper bin.
        bin_names: Labels of the bins, from low to high; default: the ranges of the bins.
        merged: Mapping from labels to the labels that replace them.
        after: String up to which text is dropped, such as the blank line after an e-mail header.
        separator: Separator between several labels in a cell, which is not needed if the cells are lists.
    """

    text: str | None = None
    label: str | None = None
    bins: tuple[float, ...] = ()
    bin_names: tuple[str, ...] = ()
    merged: Mapping[str, str] = field(default_factory=dict)
    after: str = ""
    separator: str | None = None

    def found_in(self, table: Table) -> LabelOptions:
        """Return these options with the text and label columns set. Columns that the user did not set are detected.

        Args:
            table: The table.

        Raises:
            ConfigError: The label column does not exist.
            DataError: The text column or the label column was not detected.
        """
        label = label_column(table, self.label, exclude=_named_in(self.text), numbers=bool(self.bins))
        return replace(self, label=label, text=self.text or text_column(table, exclude=label))


def read_labeled(table: Table, options: LabelOptions) -> Labeled:
    """Read the labeled texts of a table.

    Labels are strings, integers or booleans, which are read as text. If `options.bins` is set, they are numbers. White
    space around texts and labels is removed. Rows that lack a text or a label are dropped and counted.

    Args:
        table: The table.
        options: Columns and labels to read.

    Raises:
        ConfigError: A column does not exist, or the bins are invalid.
        DataError: The columns were not detected, the labels are scores but bins are not set, or none of the rows has
            both a text and a label.
    """
    options = options.found_in(table)
    template, label = str(options.text), str(options.label)
    read_text = text_reader(table, template)
    multi_label = bool(options.separator) or _are_sets([row.get(label) for row in table.rows])
    read_label = _label_list(options.separator) if multi_label else _label_reader(table, label, options)
    texts, labels, dropped = [], [], Counter[str]()
    for row in table.rows:
        text, (value, reason) = read_text(row), read_label(row.get(label))
        text = text.partition(options.after)[2].strip() if options.after and options.after in text else text
        if multi_label:
            value = SEPARATOR.join(sorted({options.merged.get(name, name) for name in value.split(SEPARATOR)}))
        else:
            value = options.merged.get(value, value)
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
            fix="Name the columns: text = ..., label = ...",
        )
    return Labeled(texts, labels, f"{template} -> {label}", dropped, multi_label)


def without_duplicates(examples: Labeled) -> Labeled:
    """Keep only the first of several duplicate texts. The comparison of texts ignores case and white space."""
    first: dict[str, int] = {}
    dropped = Counter(examples.dropped)
    for place, text in enumerate(examples.texts):
        known = first.setdefault(normalized_id(text), place)
        if known != place:
            dropped[DUPLICATE if examples.labels[known] == examples.labels[place] else CONFLICTING_DUPLICATE] += 1
    kept = examples.only(first.values())
    return replace(kept, dropped=dropped)


def without_single_labels(examples: Labeled) -> Labeled:
    """Drop labels that have only one text, because it cannot be in both the training set and the test set.

    Args:
        examples: Labeled texts.

    Raises:
        DataError: The remaining texts have fewer than two labels.
    """
    kept = with_labels(examples, {label for label, count in examples.counts().items() if count > 1}, SINGLE_EXAMPLE)
    if len(kept.counts()) < 2:
        found = ", ".join(f"{label[:40]!r} ({count})" for label, count in list(examples.counts().items())[:8])
        raise DataError(
            f"{examples.columns}: the labels are {found or 'all empty'}",
            rule="a classifier needs at least two labels, with at least 2 different texts each",
            fix="Add examples, or name another column: label = ...",
        )
    return kept


def with_labels(examples: Labeled, known: Collection[str], reason: str) -> Labeled:
    """Remove all labels that are not in `known`. Texts that lose all their labels are dropped for `reason`."""
    labels = [SEPARATOR.join(label for label in labels if label in known) for labels in examples.sets]
    return replace(examples, labels=labels).dropping((i for i, label in enumerate(labels) if label), reason)


def case_variants(examples: Labeled) -> str:
    """Return a warning if two labels differ only in case, otherwise ""."""
    by_name: dict[str, list[str]] = {}
    for label in examples.counts():
        by_name.setdefault(label.casefold(), []).append(label)
    for first, *others in (labels for labels in by_name.values() if len(labels) > 1):
        pairs = ", ".join(f'"{other}" = "{first}"' for other in others)
        return f"{first!r} and {others[0]!r} are different labels. To merge them: --set 'merge={{{pairs}}}'."
    return ""


def class_imbalance(examples: Labeled) -> str:
    """Return a warning if some labels have many more texts than others, otherwise ""."""
    counts = examples.counts()
    (frequent, high), *_, (rare, low) = counts.items()
    if high < _UNBALANCED * low:
        return ""
    texts = f"{low:,} text" + "s" * (low != 1)
    return (
        f"Imbalanced classes: {frequent[:40]!r} has {high:,} training texts, {rare[:40]!r} has {texts}. Rare labels "
        "will rarely be predicted. Set balance = true to use class weights, and compare macro-F1 instead of accuracy."
    )


def _named_in(text: str | None) -> frozenset[str]:
    return frozenset(FIELD.findall(text) or [text]) if text else frozenset()


def text_reader(table: Table, text: str) -> Callable[[dict[str, Any]], str]:
    r"""Return a function that returns the text of a row.

    Args:
        table: The table.
        text: Name of the text column, or a template such as "{subject}\n{body}".

    Raises:
        ConfigError: A column does not exist.
    """
    if text in table.columns:
        return lambda row: cell_text(row.get(text))
    fields = FIELD.findall(text)
    missing = [
        name for name in fields or [text] if name.split(".")[0] not in table.columns and name not in table.columns
    ]
    if missing:
        raise ConfigError(
            f"text = {text!r}: {table.name} has no column {missing[0]!r}, only {', '.join(table.columns[:20])}",
            fix='Name a column, or write a template such as "{subject}\\n{body}".',
        )
    template = text.replace("\\n", "\n")  # On the command line, a line break is written as a backslash and n.
    return lambda row: fill(template, row)


def read_unlabeled_texts(data: Path, text: str | None, console: Console) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a table of texts that do not have labels.

    Args:
        data: Table to read.
        text: Name of the text column, or a template, or None to detect the column.
        console: Console that prints a summary.

    Returns:
        The rows, and the text of each row.

    Raises:
        ConfigError: A column does not exist.
        DataError: The table does not exist, or it does not have a column with text.
    """
    table = read_table(data, console=console)
    column = text or text_column(table, exclude="")
    read = text_reader(table, column)
    console.note(f"{table.name}: {pluralize(len(table.rows), 'row')}, texts from {column}.")
    return table.rows, [read(row) for row in table.rows]


def _label_reader(table: Table, column: str, options: LabelOptions) -> Callable[[Any], tuple[str, str]]:
    """Return a function that reads the label in a cell.

    It returns (label, ""). If the row must be dropped, it returns ("", reason).
    """
    if options.bins:
        return _binned(options)
    values = [row.get(column) for row in table.rows]
    numbers = {number for value in values if (number := _number(value)) is not None}
    written = sum(bool(cell_text(value)) for value in values)
    if (
        len(numbers) > _MAX_LABEL_NUMBERS
        and any(n % 1 for n in numbers)
        and sum(_number(v) is not None for v in values) == written
    ):
        low, high = min(numbers), max(numbers)
        raise DataError(
            f"{table.name}: column {column!r} has {len(numbers):,} different numbers from {low:g} to {high:g}",
            rule="a classifier needs few labels, so scores must be split into bins",
            fix=f"Set thresholds: bins = [{(low + high) / 2:g}] gives two labels.",
        )
    return _single_label


def _are_sets(cells: Sequence[Any]) -> bool:
    """Return whether a column contains lists of labels.

    Most cells must be lists, because a few lists among other values are errors in the data.
    """
    lists = [listed for cell in cells if (listed := _listed(cell)) is not None]
    return 2 * len(lists) > len(cells) and any(sum(bool(_single_label(each)[0]) for each in cell) > 1 for cell in lists)


def _listed(cell: Any) -> Sequence[Any] | None:
    """Return the list in a cell, or None if the cell is not a list.

    In CSV files, a list is written in Python or JSON syntax, such as "['a', 'b']".
    """
    if isinstance(cell, list | tuple):
        return cell
    if not (isinstance(cell, str) and cell[:1] == "[" and cell[-1:] == "]" and len(cell) < _MAX_LIST_CHARS):
        return None
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # The text in brackets is not a list.
        return None
    return value if isinstance(value, list) and all(isinstance(each, str | int) for each in value) else None


def _label_list(separator: str | None) -> Callable[[Any], tuple[str, str]]:
    def read(value: Any) -> tuple[str, str]:
        listed = _listed(value)
        if listed is None:
            listed = cell_text(value).split(separator) if separator else [value]
        names = sorted({name.replace(SEPARATOR, " ") for each in listed if (name := _single_label(each)[0])})
        return (SEPARATOR.join(names), "") if names else ("", EMPTY_LABEL)

    return read


def _single_label(value: Any) -> tuple[str, str]:
    if (listed := _listed(value)) is not None:  # The label is the only item of a list.
        if len(listed) > 1:
            return "", SEVERAL_LABELS
        value = listed[0] if listed else None
    if isinstance(value, float) and value.is_integer():  # pandas converts integers to floats if values are missing.
        value = int(value)
    label = re.sub(r"\s+", " ", cell_text(value))
    return ("", EMPTY_LABEL) if label.lower() in _MISSING else (label, "")


def _binned(options: LabelOptions) -> Callable[[Any], tuple[str, str]]:
    edges = list(options.bins)
    if edges != sorted(set(edges)) or (options.bin_names and len(set(options.bin_names)) != len(edges) + 1):
        raise ConfigError(
            f"bins = {edges}, bin_names = {list(options.bin_names)}",
            rule="bins must increase; the number of bin names must be the number of bins plus 1, all names different",
            fix='For example: bins = [-0.5, 0.5], bin_names = ["negative", "neutral", "positive"].',
        )
    between = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    names = options.bin_names or (f"below {edges[0]:g}", *between, f"{edges[-1]:g} or more")

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


def summary(table: Table, examples: Labeled) -> str:
    """Return a sentence that summarizes which columns of a table were read and which rows were dropped."""
    count = sum(examples.dropped.values())
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in examples.dropped.most_common())
    rows = "row" if count == 1 else "rows"
    dropped = f"{count:,} {rows} dropped: {reasons}" if count else "no rows dropped"
    labels = examples.counts()
    rows, names = pluralize(len(table.rows), "row"), pluralize(len(labels), "label")
    return f"Read {rows} of {table.name} as {examples.columns}, {names}; {dropped}."
