"""Split labelled texts into training, validation and test set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import text_id
from groundup.corpus import Source
from groundup.data.labelled import (
    Labelled,
    LabelRules,
    imbalance,
    read_labelled,
    spelled_apart,
    summary,
    with_labels,
    without_repeats,
    without_single_labels,
)
from groundup.data.tables import Table, alike, read_table

if TYPE_CHECKING:
    from groundup.tokenizer import Tokenizer

IN_TEST, UNTRAINED = "text of the test data", "label not in the training data"
TOO_LONG = "longer than the model reads"
_MIN_VALIDATION = 50  # texts


@dataclass(frozen=True, slots=True)
class SplitRules:
    """How labelled texts are split.

    Attributes:
        test_fraction: share of each label that is held out for the test, if no test table is given.
        seed: of the split.
        limit: maximum number of training texts.
        max_tokens: training texts with more tokens are left out; None: they stay, and are truncated later.
        balanced: labels get weights, so that no warning about rare labels is needed.
    """

    test_fraction: float
    seed: int
    limit: int | None = None
    max_tokens: int | None = None
    balanced: bool = False


class LabelSettings(Config):
    """Where labelled texts are, and how they are read and split."""

    data: Path | list[Source] = setting(help="table with texts and labels, or a list of sources", positional=True)
    test: Path | list[Source] | None = setting(None, help="table to test on; default: a part of the data", flag=True)
    test_fraction: float = setting(0.2, help="share of each label to hold out as a test set", gt=0, lt=1)
    limit: int | None = setting(None, help="maximum number of training texts, drawn from all labels", ge=2)
    text: str | None = setting(None, help='column with the text, or a template like "{subject}\\n{body}"', flag=True)
    label: str | None = setting(None, help="column with the label", flag=True)
    separator: str | None = setting(
        None, help='separator of the labels in a cell that names several, e.g. ";"; lists need none'
    )
    bins: tuple[float, ...] = setting((), help="thresholds that label numbers", flag=True)
    bin_names: tuple[str, ...] = setting((), help="their names, low to high", flag=True)
    merge: dict[str, str] = setting({}, help="labels that count as another one")
    text_after: str = setting("", help="leave out all text up to this, such as a mail's head")
    max_tokens: int | None = setting(None, help="cut texts to this many tokens; default: see cut_long", ge=2)
    cut_long: bool = setting(False, help="cut texts that are longer than the context, instead of not training on them")
    balance: bool = setting(False, help="weight the classes equally in the loss")
    set_apart: float = setting(
        0.1, help="share of the training texts to hold out for validation; none if fewer than 50", ge=0, lt=1
    )

    def read(self, tokenizer: Tokenizer, max_tokens: int, seed: int, console: Console) -> tuple[Labelled, Labelled]:
        """Read the texts of training (validation included) and test; see `read_train_and_test`.

        Args:
            max_tokens: Maximum number of tokens that the model reads.
            seed: Of the split.
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
        limit = None if self.cut_long or self.max_tokens else max_tokens
        rules = SplitRules(self.test_fraction, seed, self.limit, limit, self.balance)
        return read_train_and_test(self.data, self.test, columns, rules, tokenizer, console)

    def split_validation(self, given: Labelled, seed: int, *, required: bool) -> tuple[Labelled, Labelled]:
        """Return training and validation set.

        Args:
            required: The run selects its best weights on the validation set.

        Raises:
            ConfigError: Too few texts for a validation set that is required.
        """
        train, validation = split_validation(given, self.set_apart, seed)
        if required and not len(validation):
            raise ConfigError(
                f"keep_best and patience with {len(given):,} texts, of which {self.set_apart:g} are fewer than 50",
                rule="the best weights are selected on texts that are not trained on",
                fix="Give more texts, or raise set_apart.",
            )
        return train, validation


def read_train_and_test(
    data: Path | Sequence[Source],
    test: Path | Sequence[Source] | None,
    columns: LabelRules,
    rules: SplitRules,
    tokenizer: Tokenizer,
    console: Console,
) -> tuple[Labelled, Labelled]:
    """Read the labelled texts of training (validation included) and test, and print how they were read.

    Args:
        data: table of labelled texts.
        test: table of the test set; None: a part of `data`.

    Raises:
        ConfigError: a column that is not there, or a limit below the number of labels.
        DataError: no table, or fewer than two labels.
    """
    table = read_table(data, console=console)
    columns = columns.found_in(table)
    given = read_labelled(table, columns)
    if test is None:
        train, tested = split_labelled(without_single_labels(without_repeats(given)), rules.test_fraction, rules.seed)
    else:
        train, tested = _with_test_table(table, given, read_table(test, console=console), columns, console)
    if rules.max_tokens is not None:
        train, tested = without_long(train, tested, fitting_texts(tokenizer, train.texts, rules.max_tokens))
    console.note(summary(table, train))
    if rules.limit is not None:
        train = limited(train, rules.limit, rules.seed)
    if warning := spelled_apart(train):
        console.warn(warning)
    if not rules.balanced and (warning := imbalance(train)):
        console.warn(warning)
    console.note(f"{len(train):,} texts to learn from, {len(tested):,} to test on.")
    return train, tested


def _with_test_table(
    table: Table, given: Labelled, test_table: Table, columns: LabelRules, console: Console
) -> tuple[Labelled, Labelled]:
    test = read_labelled(test_table, columns.found_in(test_table))
    if test.multi_label and not given.multi_label:
        raise DataError(
            f"{test_table.name}: some texts have several labels",
            rule=f"in {table.name} each has one: of a text one label is learned, or several are",
            fix="Give test data with one label of each text.",
        )
    train, test = apart(without_repeats(given), test)
    console.note(f"For the test, {summary(test_table, test)}")
    return train, test


def fitting_texts(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[int]:
    """Return the indices of the texts that need no truncation."""
    ids = tokenizer.encode_batch(texts)
    return [index for index, text in enumerate(ids) if len(tokenizer.whole(text)) <= max_tokens]


def split_labelled(examples: Labelled, fraction: float, seed: int) -> tuple[Labelled, Labelled]:
    """Training and test part. The test part has about `fraction` of each label, at least one text and never the last.

    Which texts are drawn follows from (seed, text) alone: not from their order, nor from the other texts.
    """
    places: dict[str, list[int]] = {}
    counts, sets = examples.counts(), examples.sets
    for place in _drawing(examples, seed):  # of several labels the rarest, which has the fewest places
        places.setdefault(min(sets[place], key=lambda label: counts[label]), []).append(place)
    left, drawn = Counter(counts), set[int]()
    for members in places.values():
        for place in members[: max(1, round(fraction * len(members)))]:
            if all(left[label] > 1 for label in sets[place]):
                drawn.add(place)
                left.subtract(sets[place])
    return _without(examples, drawn), examples.only(sorted(drawn))


def limited(examples: Labelled, most: int, seed: int) -> Labelled:
    """So many of the texts, with one of each label among them.

    Raises:
        ConfigError: fewer than there are labels.
    """
    if most >= len(examples):
        return examples
    if most < (names := len(examples.counts())):
        raise ConfigError(
            f"limit = {most:,}",
            rule=f"at least one text of each label is learned, and there are {names:,} labels",
            fix="Raise it, or leave labels out of the table.",
        )
    left, dropped, sets = Counter(examples.counts()), set[int](), examples.sets
    for place in reversed(_drawing(examples, seed)):
        if len(examples) - len(dropped) > most and all(left[label] > 1 for label in sets[place]):
            dropped.add(place)
            left.subtract(sets[place])
    return _without(examples, dropped)


def split_validation(examples: Labelled, fraction: float, seed: int) -> tuple[Labelled, Labelled]:
    """Return training and validation set; the latter decides on the temperature and on the best checkpoint.

    It is a random sample, except that the training set keeps a text of each label. It is empty if it would have fewer
    than 50 texts, too few to decide anything.
    """
    wanted = round(fraction * len(examples))
    if wanted < _MIN_VALIDATION:
        return examples, examples.only([])
    train = limited(examples, max(len(examples) - wanted, len(examples.counts())), seed)
    kept = set(train.texts)
    return train, examples.only(index for index, text in enumerate(examples.texts) if text not in kept)


def without_long(train: Labelled, test: Labelled, fitting: Sequence[int]) -> tuple[Labelled, Labelled]:
    """Training texts that the model reads whole, and the test texts whose labels these have.

    Test texts stay, however long: a text to be classified has to be cut.

    Args:
        fitting: the places of these training texts.

    Raises:
        DataError: fewer than two labels are left.
    """
    if len(fitting) == len(train):
        return train, test
    return apart(train.dropping(fitting, TOO_LONG), test)


def apart(train: Labelled, test: Labelled) -> tuple[Labelled, Labelled]:
    """Two tables made fit for each other: no training text is in the test part, no test label is untrained.

    The test part stays as it was given otherwise, so that results on it can be compared.
    """
    tested = {alike(text) for text in test.texts}
    learned = train.dropping((i for i, text in enumerate(train.texts) if alike(text) not in tested), IN_TEST)
    train = without_single_labels(learned)
    kept = with_labels(
        replace(test, multi_label=test.multi_label or train.multi_label), train.counts().keys(), UNTRAINED
    )
    if not kept.texts:
        raise DataError(
            f"{test.columns}: its labels are {', '.join(list(test.counts())[:8])}",
            rule=f"the test data has labels of the training data: {', '.join(list(train.counts())[:8])}",
            fix="Check that the two tables name their labels alike.",
        )
    return train, kept


def _drawing(examples: Labelled, seed: int) -> list[int]:
    """All places, in an order that follows from (seed, text)."""
    return sorted(range(len(examples)), key=lambda place: text_id(f"{seed}\0{examples.texts[place]}"))


def _without(examples: Labelled, places: Collection[int]) -> Labelled:
    return replace(examples.only(i for i in range(len(examples)) if i not in places), dropped=examples.dropped)
