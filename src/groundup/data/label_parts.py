"""Which labelled texts are learned, which decide on what was learned, and which are tested on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from groundup.core.errors import ConfigError, DataError
from groundup.core.types import text_id
from groundup.data.labelled import Labelled, with_labels, without_single_labels
from groundup.data.tables import alike

IN_TEST, UNTRAINED = "text of the test data", "label not in the training data"
TOO_LONG = "longer than the model reads"
_FEWEST_DECIDING = 50


def split(examples: Labelled, fraction: float, seed: int) -> tuple[Labelled, Labelled]:
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


def set_apart(examples: Labelled, fraction: float, seed: int) -> tuple[Labelled, Labelled]:
    """What is learned, and a part of it that decides what is not learned: temperature, the best state of the run.

    Drawn from all texts alike, but never the last of a label, which is needed to learn it. None where it would be fewer
    than 50 texts, which decide nothing.
    """
    wanted = round(fraction * len(examples))
    if wanted < _FEWEST_DECIDING:
        return examples, examples.only([])
    learned = limited(examples, max(len(examples) - wanted, len(examples.counts())), seed)
    kept = set(learned.texts)
    return learned, examples.only(place for place, text in enumerate(examples.texts) if text not in kept)


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
    kept = with_labels(replace(test, several=test.several or train.several), train.counts().keys(), UNTRAINED)
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
