"""Labels of held-out texts before and after tuning: of a classifier beside another, or beside a language model that is
asked for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import compress

from groundup.core.console import Console
from groundup.core.types import Example, Message
from groundup.data.labelled import Labelled
from groundup.data.tables import spread
from groundup.evaluation.asking import (
    JUDGED_ON,
    Asked,
    Way,
    best_way,
    choose_labels,
    hint_at,
    untried_way,
    ways_tried,
    write_answers,
)
from groundup.evaluation.baselines import label_baselines, label_set_baselines
from groundup.evaluation.metrics import Measure, label_reader, label_sets
from groundup.evaluation.metrics import labels as single_labels
from groundup.evaluation.rendering import fits
from groundup.evaluation.uplift import Line, Uplift
from groundup.hub.resolve import OpenedClassifier
from groundup.inference.classification import above_threshold, encode, predict

LabelSets = Sequence[tuple[str, ...]]
"""Of each text its labels: one, where there is always one."""

_CHOSEN = 12  # labels at most that each are scored; where there are more, the model writes one
_LABEL_TOKENS, _SET_TOKENS = 24, 64  # of what it writes, at most
_TEXT_TOKENS = 200  # of a text that is shown to a language model to label, at most


def compare_labels(
    before: Asked | OpenedClassifier,
    after: OpenedClassifier,
    learned: Labelled,
    tested: Labelled,
    console: Console,
    *,
    seed: int = 0,
) -> Uplift:
    """One label of each text, or several where `after` gives several.

    Args:
        learned: training texts; without any, a language model is shown none, and nothing is counted beside.
    """
    several = after.model.multi_label
    ours = _classified(after, tested.texts, several, "tuned", console)
    notes = []
    if isinstance(before, OpenedClassifier):
        theirs = _classified(before, tested.texts, several, "base", console)
    else:
        theirs, how = _labelled_by(before, learned, tested, after.labels, several, console)
        notes.append(how)
    simple = _simple_ways(learned, tested.texts, several) if learned.texts else {}
    rivals = {name: _measures(found, tested.sets, several) for name, found in simple.items()}
    pairs = zip(*(_measures(found, tested.sets, several) for found in (theirs, ours)), strict=True)
    lines = [
        Line("task", f"{len(tested):,} texts", old, new, {name: found[place] for name, found in rivals.items()}, seed)
        for place, (old, new) in enumerate(pairs)
    ]
    return Uplift(lines, notes)


def _measures(predicted: LabelSets, true: LabelSets, several: bool) -> list[Measure]:
    if several:
        return label_sets(predicted, true)
    return single_labels([label for (label,) in predicted], [label for (label,) in true])


def _simple_ways(learned: Labelled, tested: Sequence[str], several: bool) -> dict[str, LabelSets]:
    if several:
        return dict(label_set_baselines(learned.texts, learned.sets, tested))
    found = label_baselines(learned.texts, learned.labels, tested)
    return {name: [(label,) for label in labels] for name, labels in found.items()}


def _classified(opened: OpenedClassifier, texts: Sequence[str], several: bool, who: str, console: Console) -> LabelSets:
    encoded, _ = encode(opened.tokenizer, texts, opened.longest)
    with console.progress(f"labels of the {who} model", len(encoded), "texts") as bar:
        found_EC = predict(opened.model, encoded, pad_id=opened.tokenizer.pad_id, advance=bar.advance)
    if several and opened.model.multi_label:
        return [tuple(opened.labels[place] for place in has_C.nonzero()[0]) for has_C in above_threshold(found_EC)]
    return [(opened.labels[place],) for place in found_EC.argmax(1)]


def _labelled_by(
    asked: Asked, learned: Labelled, tested: Labelled, labels: Sequence[str], several: bool, console: Console
) -> tuple[LabelSets, str]:
    """Labels that a language model gives when it is asked in its best way; and which way that is."""
    quarter = asked.model.config.context_length // 4  # small models have small contexts, in which all of it must fit
    shown, most = min(_TEXT_TOKENS, quarter), min(_SET_TOKENS if several else _LABEL_TOKENS, quarter)
    known, examples = (
        [_as_example(asked, text, ", ".join(has), shown) for text, has in zip(part.texts, part.sets, strict=True)]
        for part in (learned, tested)
    )
    chosen = len(labels) <= _CHOSEN and not several
    read = _set_reader(labels) if several else _single_reader(labels)

    def given(way: Way, some: Sequence[Example]) -> LabelSets:
        if chosen:
            return [(label,) for label in choose_labels(asked, way, some, labels)]
        fitting = [fits(way.renderer(asked), each, asked.model.config.context_length - most) for each in some]
        written = iter(write_answers(asked, way, list(compress(some, fitting)), most))
        return [read(next(written) if has_room else "") for has_room in fitting]

    def quality(way: Way, examples: Sequence[Example]) -> float:
        some = spread(examples, JUDGED_ON)
        true = [read(example.messages[-1].content) for example in some]
        # Whole sets are seldom right before a model is tuned: how near it comes says more.
        return _measures(given(way, some), true, several)[several].estimate

    hint = hint_at(labels, several=several)
    if known:
        with console.progress("the base's best way", ways_tried(asked, hint), "ways") as bar:
            way = best_way(asked, known, hint=hint, quality=quality, advance=bar.advance)
    else:
        way = untried_way(asked, hint)
    with console.progress("labels of the base", len(examples), "texts") as bar:
        found: list[tuple[str, ...]] = []
        for start in range(0, len(examples), JUDGED_ON):
            found += given(way, examples[start : start + JUDGED_ON])
            bar.advance(len(examples[start : start + JUDGED_ON]))
    how = "the likeliest of the labels" if chosen else "what it writes"
    asked_by = f"in its best way ({way.name})" if known else f"by {way.name}, for want of training texts to try ways on"
    return found, f"The base is no classifier: it was asked, {asked_by}; {how} counts as its answer."


def _single_reader(labels: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    read = label_reader(labels)
    return lambda text: (text if text in labels else read(text),)


def _set_reader(labels: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """What finds the labels that a text lists, commas, semicolons or lines apart; all else in it counts for nothing."""
    read, marks = label_reader(labels), re.compile("[,;\n]")
    with_marks = sorted(filter(marks.search, labels), key=len, reverse=True)  # a longer one may hold a shorter one

    def listed(text: str) -> tuple[str, ...]:
        found = set()
        for label in with_marks:
            if label in text:
                found.add(label)
                text = text.replace(label, ",")
        parts = [part.strip() for part in marks.split(text)]
        found |= {part if part in labels else read(part) for part in parts}
        return tuple(label for label in labels if label in found)

    return listed


def _as_example(asked: Asked, text: str, label: str, most: int) -> Example:
    """A text to label, as a question; of a long text, the first `most` tokens."""
    ids = asked.tokenizer.encode(text[: 8 * most])
    shown = text if len(ids) <= most and len(text) <= 8 * most else ""
    shown = shown or asked.tokenizer.decode(ids[:most])
    return Example((Message("user", shown), Message("assistant", label)))
