"""Split labeled texts into training, validation and test set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.plural import pluralize
from groundup.core.types import text_id
from groundup.corpus import Source
from groundup.data.labeled import (
    Labeled,
    LabelRules,
    case_variants,
    class_imbalance,
    read_labeled,
    summary,
    with_labels,
    without_duplicates,
    without_single_labels,
)
from groundup.data.tables import Table, normalized_id, read_table

if TYPE_CHECKING:
    from groundup.tokenizer import Tokenizer

IN_TEST, UNTRAINED_LABEL = "text of the test data", "label not in the training data"
TOO_LONG = "longer than the context"
_MIN_VALIDATION = 50  # texts


@dataclass(frozen=True, slots=True)
class SplitRules:
    """How labeled texts are split.

    Attributes:
        test_fraction: Fraction of each label to hold out as a test set, if no test table is given.
        seed: Random seed of the split.
        limit: Maximum number of training texts.
        max_tokens: Maximum length of training texts; longer ones are dropped. None: they are truncated later.
        balanced: Whether the loss uses class weights, so that no warning about rare labels is needed.
    """

    test_fraction: float
    seed: int
    limit: int | None = None
    max_tokens: int | None = None
    balanced: bool = False


class LabelSettings(Config):
    """Where labeled texts are, and how they are read and split."""

    data: Path | list[Source] = setting(help="table with texts and labels, or a list of sources", positional=True)
    test: Path | list[Source] | None = setting(None, help="test table; default: hold out a part of the data", flag=True)
    test_fraction: float = setting(0.2, help="fraction of each label to hold out as a test set", gt=0, lt=1)
    limit: int | None = setting(None, help="maximum number of training texts, sampled from all labels", ge=2)
    text: str | None = setting(None, help='column with the text, or a template like "{subject}\\n{body}"', flag=True)
    label: str | None = setting(None, help="column with the label", flag=True)
    separator: str | None = setting(
        None, help='separator of several labels in one cell, e.g. ";"; not needed for list columns'
    )
    bins: tuple[float, ...] = setting((), help="thresholds that turn numbers into labels", flag=True)
    bin_names: tuple[str, ...] = setting((), help="labels of the bins, low to high", flag=True)
    merge: dict[str, str] = setting({}, help="labels to replace by another label")
    text_after: str = setting("", help="drop all text up to this string, e.g. the header of a mail")
    max_tokens: int | None = setting(None, help="truncate texts to this many tokens; default: see truncate", ge=2)
    truncate: bool = setting(False, help="truncate training texts longer than the context instead of dropping them")
    balance: bool = setting(False, help="use class weights, so that all classes count equally in the loss")
    validation_fraction: float = setting(
        0.1, help="fraction of the training texts to hold out for validation; not used below 50 texts", ge=0, lt=1
    )

    def read(self, tokenizer: Tokenizer, max_tokens: int, seed: int, console: Console) -> tuple[Labeled, Labeled]:
        """Read training (with validation) and test texts; see `read_train_and_test`.

        Args:
            tokenizer: Tokenizer of the model.
            max_tokens: Maximum number of tokens per text.
            seed: Random seed of the split.
            console: Console to print to.
        """
        columns = LabelRules(
            self.text,
            self.label,
            self.bins,
            self.bin_names,
            merged=self.merge,
            after=self.text_after,
            separator=self.separator,
        )
        limit = None if self.truncate or self.max_tokens else max_tokens
        rules = SplitRules(self.test_fraction, seed, self.limit, limit, self.balance)
        return read_train_and_test(self.data, self.test, columns, rules, tokenizer, console)

    def split_validation(self, given: Labeled, seed: int, *, required: bool) -> tuple[Labeled, Labeled]:
        """Return training and validation set.

        Args:
            given: Training texts, with the validation texts.
            seed: Random seed of the split.
            required: Whether the run selects its best checkpoint on the validation set.

        Raises:
            ConfigError: The validation set is required and would be too small.
        """
        train, validation = split_validation(given, self.validation_fraction, seed)
        if required and not len(validation):
            raise ConfigError(
                f"keep_best and early_stopping_patience need a validation set, but {self.validation_fraction:g} of "
                f"{len(given):,} texts is fewer than {_MIN_VALIDATION}",
                fix="Add texts, or raise validation_fraction.",
            )
        return train, validation


def read_train_and_test(
    data: Path | Sequence[Source],
    test: Path | Sequence[Source] | None,
    columns: LabelRules,
    rules: SplitRules,
    tokenizer: Tokenizer,
    console: Console,
) -> tuple[Labeled, Labeled]:
    """Read labeled texts for training (with validation) and test, and print how they were read.

    Args:
        data: Table of labeled texts.
        test: Table of the test set; None: hold out a part of `data`.
        columns: Columns and labels to read.
        rules: How the texts are split.
        tokenizer: Tokenizer of the model, to measure lengths.
        console: Console to print to.

    Returns:
        Training and test texts.

    Raises:
        ConfigError: A column does not exist, or the limit is below the number of labels.
        DataError: The table does not exist, or has fewer than two labels.
    """
    table = read_table(data, console=console)
    columns = columns.found_in(table)
    given = read_labeled(table, columns)
    if test is None:
        train, tested = split_labeled(without_single_labels(without_duplicates(given)), rules.test_fraction, rules.seed)
    else:
        train, tested = _with_test_table(table, given, read_table(test, console=console), columns, console)
    if rules.max_tokens is not None:
        train, tested = without_long(train, tested, fitting_texts(tokenizer, train.texts, rules.max_tokens))
    console.note(summary(table, train))
    if rules.limit is not None:
        train = limit_texts(train, rules.limit, rules.seed)
    if warning := case_variants(train):
        console.warn(warning)
    if not rules.balanced and (warning := class_imbalance(train)):
        console.warn(warning)
    console.note(f"{pluralize(len(train), 'training text')}, {pluralize(len(tested), 'test text')}.")
    return train, tested


def _with_test_table(
    table: Table, given: Labeled, test_table: Table, columns: LabelRules, console: Console
) -> tuple[Labeled, Labeled]:
    test = read_labeled(test_table, columns.found_in(test_table))
    if test.multi_label and not given.multi_label:
        raise DataError(
            f"{test_table.name}: some texts have several labels, but those in {table.name} have one each",
            fix="Give test data with one label per text.",
        )
    train, test = without_overlap(without_duplicates(given), test)
    console.note(f"Test set: {summary(test_table, test)}")
    return train, test


def fitting_texts(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[int]:
    """Return the indices of the texts that need no truncation."""
    ids = tokenizer.encode_batch(texts)
    return [index for index, text in enumerate(ids) if len(tokenizer.build_inputs(text)) <= max_tokens]


def split_labeled(examples: Labeled, fraction: float, seed: int) -> tuple[Labeled, Labeled]:
    """Return training and test set. The test set has about `fraction` of each label.

    Each label keeps at least one training text, and has a test text if it can. The sample depends on seed and text
    only, not on the order or the other texts.
    """
    places: dict[str, list[int]] = {}
    counts, sets = examples.counts(), examples.sets
    for place in _random_order(examples, seed):  # a text with several labels counts for its rarest
        places.setdefault(min(sets[place], key=lambda label: counts[label]), []).append(place)
    left, drawn = Counter(counts), set[int]()
    for members in places.values():
        for place in members[: max(1, round(fraction * len(members)))]:
            if all(left[label] > 1 for label in sets[place]):
                drawn.add(place)
                left.subtract(sets[place])
    return _without(examples, drawn), examples.only(sorted(drawn))


def limit_texts(examples: Labeled, max_texts: int, seed: int) -> Labeled:
    """Return at most `max_texts` texts, with at least one text per label.

    Raises:
        ConfigError: The limit is below the number of labels.
    """
    if max_texts >= len(examples):
        return examples
    if max_texts < (names := len(examples.counts())):
        raise ConfigError(
            f"limit = {max_texts:,} is below the number of labels, {names:,}",
            fix="Raise limit, or remove labels from the table.",
        )
    left, dropped, sets = Counter(examples.counts()), set[int](), examples.sets
    for place in reversed(_random_order(examples, seed)):
        if len(examples) - len(dropped) > max_texts and all(left[label] > 1 for label in sets[place]):
            dropped.add(place)
            left.subtract(sets[place])
    return _without(examples, dropped)


def split_validation(examples: Labeled, fraction: float, seed: int) -> tuple[Labeled, Labeled]:
    """Return training and validation set; the latter selects the temperature and the best checkpoint.

    It is a random sample, except that the training set keeps a text of each label. It is empty if it would have fewer
    than 50 texts.
    """
    wanted = round(fraction * len(examples))
    if wanted < _MIN_VALIDATION:
        return examples, examples.only([])
    train = limit_texts(examples, max(len(examples) - wanted, len(examples.counts())), seed)
    kept = set(train.texts)
    return train, examples.only(index for index, text in enumerate(examples.texts) if text not in kept)


def without_long(train: Labeled, test: Labeled, fitting: Sequence[int]) -> tuple[Labeled, Labeled]:
    """Drop training texts that exceed the context, and test texts whose labels are then untrained.

    Long test texts stay, because the classifier truncates its inputs.

    Args:
        train: Training texts.
        test: Test texts.
        fitting: Indices of the training texts that fit.

    Raises:
        DataError: Fewer than two labels are left.
    """
    if len(fitting) == len(train):
        return train, test
    return without_overlap(train.dropping(fitting, TOO_LONG), test)


def without_overlap(train: Labeled, test: Labeled) -> tuple[Labeled, Labeled]:
    """Drop training texts that are in the test set, and test texts whose label is not trained.

    The test set is not changed otherwise, so that results on it stay comparable.
    """
    tested = {normalized_id(text) for text in test.texts}
    learned = train.dropping((i for i, text in enumerate(train.texts) if normalized_id(text) not in tested), IN_TEST)
    train = without_single_labels(learned)
    kept = with_labels(
        replace(test, multi_label=test.multi_label or train.multi_label), train.counts().keys(), UNTRAINED_LABEL
    )
    if not kept.texts:
        raise DataError(
            f"{test.columns}: the labels {', '.join(list(test.counts())[:8])} are not in the training data, "
            f"which has {', '.join(list(train.counts())[:8])}",
            fix="Use the same label names in both tables.",
        )
    return train, kept


def _random_order(examples: Labeled, seed: int) -> list[int]:
    """Return all indices, in an order that depends on seed and text only."""
    return sorted(range(len(examples)), key=lambda place: text_id(f"{seed}\0{examples.texts[place]}"))


def _without(examples: Labeled, places: Collection[int]) -> Labeled:
    return replace(examples.only(i for i in range(len(examples)) if i not in places), dropped=examples.dropped)
