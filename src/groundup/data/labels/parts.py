"""Split of labeled texts into training, validation and test sets."""

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
from groundup.data.labels.reading import (
    Labeled,
    LabelOptions,
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
_MIN_VALIDATION = 50  # Minimum number of texts in a validation set.


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """Options for splitting labeled texts into a training set and a test set.

    Attributes:
        test_fraction: Fraction of the texts of each label to hold out as a test set if no test table is given.
        seed: Random seed of the split.
        limit: Maximum number of training texts; default: no maximum.
        max_tokens: Maximum length of training texts. Longer texts are dropped. By default, no texts are dropped,
            because long texts are truncated later.
        balanced: Whether the loss uses class weights. With class weights, no warning about rare labels is printed.
    """

    test_fraction: float
    seed: int
    limit: int | None = None
    max_tokens: int | None = None
    balanced: bool = False


class LabelSettings(Config):
    """Settings of labeled data: its sources, its columns and labels, truncation, and the split."""

    data: Path | list[Source] = setting(help="table of texts and labels, or a list of sources", positional=True)
    test: Path | list[Source] | None = setting(None, help="test table; default: hold out a part of the data", flag=True)
    test_fraction: float = setting(
        0.2, help="fraction of the texts of each label to hold out as a test set", gt=0, lt=1
    )
    limit: int | None = setting(None, help="maximum number of training texts; each label keeps at least one text", ge=2)
    text: str | None = setting(
        None, help='name of the text column, or a template such as "{subject}\\n{body}"', flag=True
    )
    label: str | None = setting(None, help="name of the label column", flag=True)
    separator: str | None = setting(
        None, help='separator between several labels in a cell, such as ";"; not needed if cells are lists'
    )
    bins: tuple[float, ...] = setting((), help="thresholds that convert a column of numbers to labels", flag=True)
    bin_names: tuple[str, ...] = setting((), help="names of the bins, from low to high", flag=True)
    merge: dict[str, str] = setting({}, help="mapping from labels to the labels that replace them")
    text_after: str = setting("", help="drop all text up to and including this string, such as an e-mail header")
    max_tokens: int | None = setting(
        None, help="truncate all texts to this number of tokens; default: the context length, see truncate", ge=2
    )
    truncate: bool = setting(
        False, help="truncate training texts that exceed the context length instead of dropping them"
    )
    balance: bool = setting(False, help="use class weights, so that all classes count equally in the loss")
    validation_fraction: float = setting(
        0.1,
        help="fraction of the training texts to hold out for validation; 0 if it would be fewer than 50 texts",
        ge=0,
        lt=1,
    )

    def read(self, tokenizer: Tokenizer, max_tokens: int, seed: int, console: Console) -> tuple[Labeled, Labeled]:
        """Read the training and test texts. The training texts include the validation texts.

        Args:
            tokenizer: Tokenizer of the model.
            max_tokens: Maximum number of tokens per text.
            seed: Random seed of the split.
            console: Console that prints notes and warnings.
        """
        columns = LabelOptions(
            self.text,
            self.label,
            self.bins,
            self.bin_names,
            merged=self.merge,
            after=self.text_after,
            separator=self.separator,
        )
        limit = None if self.truncate or self.max_tokens else max_tokens
        options = SplitOptions(self.test_fraction, seed, self.limit, limit, self.balance)
        return read_train_and_test(self.data, self.test, columns, options, tokenizer, console)

    def split_validation(self, given: Labeled, seed: int, *, required: bool) -> tuple[Labeled, Labeled]:
        """Split training texts into a training set and a validation set.

        Args:
            given: Training texts, including the validation texts.
            seed: Random seed of the split.
            required: Whether the run needs a validation set, because it selects its best checkpoint.

        Raises:
            ConfigError: The validation set is required but would have too few texts.
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
    columns: LabelOptions,
    options: SplitOptions,
    tokenizer: Tokenizer,
    console: Console,
) -> tuple[Labeled, Labeled]:
    """Read labeled texts for training and testing, and print a summary.

    Args:
        data: Table of labeled texts.
        test: Table of test texts, or None to hold out a part of `data`.
        columns: Columns and labels to read.
        options: Options for splitting the texts.
        tokenizer: Tokenizer of the model, which measures the lengths of texts.
        console: Console that prints notes and warnings.

    Returns:
        The training texts, including those for validation, and the test texts.

    Raises:
        ConfigError: A column does not exist, or `options.limit` is smaller than the number of labels.
        DataError: The table does not exist, or it has fewer than two labels.
    """
    table = read_table(data, console=console)
    columns = columns.found_in(table)
    given = read_labeled(table, columns)
    if test is None:
        train, tested = split_labeled(
            without_single_labels(without_duplicates(given)), options.test_fraction, options.seed
        )
    else:
        train, tested = _with_test_table(table, given, read_table(test, console=console), columns, console)
    if options.max_tokens is not None:
        train, tested = without_long(train, tested, fitting_texts(tokenizer, train.texts, options.max_tokens))
    console.note(summary(table, train))
    if options.limit is not None:
        train = limit_texts(train, options.limit, options.seed)
    if warning := case_variants(train):
        console.warn(warning)
    if not options.balanced and (warning := class_imbalance(train)):
        console.warn(warning)
    console.note(f"{pluralize(len(train), 'training text')}, {pluralize(len(tested), 'test text')}.")
    return train, tested


def _with_test_table(
    table: Table, given: Labeled, test_table: Table, columns: LabelOptions, console: Console
) -> tuple[Labeled, Labeled]:
    test = read_labeled(test_table, columns.found_in(test_table))
    if test.multi_label and not given.multi_label:
        raise DataError(
            f"{test_table.name}: some texts have several labels, but each text in {table.name} has one label",
            fix="Give test data with one label per text.",
        )
    train, test = without_overlap(without_duplicates(given), test)
    console.note(f"Test set: {summary(test_table, test)}")
    return train, test


def fitting_texts(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[int]:
    """Return the indices of the texts that have at most `max_tokens` tokens."""
    ids = tokenizer.encode_batch(texts)
    return [index for index, text in enumerate(ids) if len(tokenizer.build_inputs(text)) <= max_tokens]


def split_labeled(examples: Labeled, fraction: float, seed: int) -> tuple[Labeled, Labeled]:
    """Split labeled texts into a training set and a test set.

    The test set has about the share `fraction` of the texts of each label. Each label keeps at least one training text
    and, if possible, has at least one test text. Texts are chosen by hashes of the seed and the text, so their order in
    the table does not affect the split.
    """
    places: dict[str, list[int]] = {}
    counts, sets = examples.counts(), examples.sets
    for place in _random_order(examples, seed):  # A text with several labels is assigned to its rarest label.
        places.setdefault(min(sets[place], key=lambda label: counts[label]), []).append(place)
    left, drawn = Counter(counts), set[int]()
    for members in places.values():
        for place in members[: max(1, round(fraction * len(members)))]:
            if all(left[label] > 1 for label in sets[place]):
                drawn.add(place)
                left.subtract(sets[place])
    return _without(examples, drawn), examples.only(sorted(drawn))


def limit_texts(examples: Labeled, max_texts: int, seed: int) -> Labeled:
    """Return a random sample of at most `max_texts` texts that has at least one text of each label.

    Raises:
        ConfigError: `max_texts` is smaller than the number of labels.
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
    """Split training texts into a training set and a validation set.

    The validation set is used to fit the temperature and to select the best checkpoint. The validation set is a random
    sample, except that the training set keeps at least one text of each label. If the validation set would have fewer
    than 50 texts, it is empty.
    """
    wanted = round(fraction * len(examples))
    if wanted < _MIN_VALIDATION:
        return examples, examples.only([])
    train = limit_texts(examples, max(len(examples) - wanted, len(examples.counts())), seed)
    kept = set(train.texts)
    return train, examples.only(index for index, text in enumerate(examples.texts) if text not in kept)


def without_long(train: Labeled, test: Labeled, fitting: Sequence[int]) -> tuple[Labeled, Labeled]:
    """Drop training texts that exceed the context length.

    Test texts whose labels no longer occur in the training set are dropped too. Long test texts are kept, because the
    classifier truncates its inputs.

    Args:
        train: Training texts.
        test: Test texts.
        fitting: Indices of the training texts that do not exceed the context length.

    Raises:
        DataError: The remaining training texts have fewer than two labels.
    """
    if len(fitting) == len(train):
        return train, test
    return without_overlap(train.dropping(fitting, TOO_LONG), test)


def without_overlap(train: Labeled, test: Labeled) -> tuple[Labeled, Labeled]:
    """Drop training texts that occur in the test set, and test texts whose label does not occur in the training set.

    Other test texts are kept, so that the results can be compared with published results on the same test set.
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
    """Return the indices of all texts, sorted by a hash of the seed and the text."""
    return sorted(range(len(examples)), key=lambda place: text_id(f"{seed}\0{examples.texts[place]}"))


def _without(examples: Labeled, places: Collection[int]) -> Labeled:
    return replace(examples.only(i for i in range(len(examples)) if i not in places), dropped=examples.dropped)
