"""Comparison of the labels of held-out texts: a classifier against another, or against a prompted language model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.types import Example, Message
from groundup.data.held_out import HeldOut
from groundup.data.labeled import Labeled
from groundup.data.tables import evenly_spaced
from groundup.evaluation.baselines import label_baselines, label_set_baselines
from groundup.evaluation.comparison import Comparison, ComparisonReport
from groundup.evaluation.metrics import Measure, label_reader, label_sets
from groundup.evaluation.metrics import labels as single_labels
from groundup.evaluation.prompt_search import (
    MAX_QUALITY_EXAMPLES,
    FewShotPrompt,
    PromptedModel,
    best_prompt,
    choose_labels,
    default_prompt,
    generate_answers,
    label_instruction,
    num_trials,
    open_prompted,
)
from groundup.hub.adapted import belongs_to
from groundup.hub.resolve import OpenedClassifier, is_classifier, open_classifier
from groundup.inference.classification import above_threshold, predict_texts
from groundup.inference.prompting import fits
from groundup.kernels import ComputeDtype, keep_for_reading

LabelSets = Sequence[tuple[str, ...]]
"""The labels of each text: one, if every text has one."""

_MAX_SCORED_LABELS = 12  # with more labels, the model generates one instead of scoring each
_LABEL_TOKENS, _SET_TOKENS = 24, 64  # maximum number of tokens to generate
_TEXT_TOKENS = 200  # maximum number of tokens of a text in a prompt


def open_compared(
    before: Path, after: Path, device: str | None, dtype: ComputeDtype, console: Console
) -> tuple[PromptedModel | OpenedClassifier, OpenedClassifier]:
    """Open a classifier, and what it is compared with: another classifier, or a language model to prompt.

    Raises:
        DataError: no model there.
        FormatError: a damaged model.
    """
    new = open_classifier(after, device=device, base=before if belongs_to(after, before) else None)
    keep_for_reading(new.model, dtype)
    if not is_classifier(before):
        return open_prompted(before, before, device, dtype, console), new
    old = open_classifier(before, device=device)
    keep_for_reading(old.model, dtype)
    return old, new


def compare_labels(
    before: PromptedModel | OpenedClassifier,
    after: OpenedClassifier,
    held_out: HeldOut[Labeled],
    console: Console,
    *,
    max_examples: int = 200,
    seed: int = 0,
) -> ComparisonReport:
    """Compare the labels of a classifier with those of another classifier or of a prompted language model.

    Texts have one label each, or several if `after` gives several.

    Args:
        held_out: without training texts, a language model is shown none, and there are no baselines.
        max_examples: maximum number of test texts for a language model.

    Raises:
        DataError: texts with several labels, for a classifier that gives one.
    """
    several, train, test = after.model.multi_label, held_out.train, held_out.test
    if test.multi_label and not several:
        raise DataError(
            "--data: some texts have several labels",
            rule=f"{after.directory} gives each text one label",
            fix="Give data with one label of each text, or a classifier that was trained on texts with several.",
        )
    if not isinstance(before, OpenedClassifier):
        test = test.only(evenly_spaced(range(len(test)), max_examples))
    new_labels = _classified(after, test.texts, several, "tuned", console)
    notes = [*held_out.notes]
    if isinstance(before, OpenedClassifier):
        old_labels = _classified(before, test.texts, several, "base", console)
    else:
        old_labels, how = _prompted(before, train, test, after.labels, several, console)
        notes.append(how)
    simple = _baselines(train, test.texts, several) if train.texts else {}
    scores = {name: _measures(found, test.sets, several) for name, found in simple.items()}
    pairs = zip(*(_measures(found, test.sets, several) for found in (old_labels, new_labels)), strict=True)
    what = f"{len(test):,} texts"
    comparisons = [
        Comparison(old, new, seed, "task", what, {name: found[place] for name, found in scores.items()})
        for place, (old, new) in enumerate(pairs)
    ]
    return ComparisonReport(comparisons, notes)


def _measures(predicted: LabelSets, true: LabelSets, several: bool) -> list[Measure]:
    if several:
        return label_sets(predicted, true)
    return single_labels([label for (label,) in predicted], [label for (label,) in true])


def _baselines(train: Labeled, test: Sequence[str], several: bool) -> dict[str, LabelSets]:
    if several:
        return dict(label_set_baselines(train.texts, train.sets, test))
    found = label_baselines(train.texts, train.labels, test)
    return {name: [(label,) for label in labels] for name, labels in found.items()}


def _classified(opened: OpenedClassifier, texts: Sequence[str], several: bool, who: str, console: Console) -> LabelSets:
    with console.progress(f"labels of the {who} model", len(texts), "texts") as bar:
        found_EC = predict_texts(opened, texts, advance=bar.advance).probabilities
    if several and opened.model.multi_label:
        return [tuple(opened.labels[place] for place in has_C.nonzero()[0]) for has_C in above_threshold(found_EC)]
    return [(opened.labels[place],) for place in found_EC.argmax(1)]


def _prompted(
    model: PromptedModel, train: Labeled, test: Labeled, labels: Sequence[str], several: bool, console: Console
) -> tuple[LabelSets, str]:
    """Return the labels that a language model gives with its best prompt, and a note about that prompt."""
    context = model.model.config.context_length
    quarter = context // 4  # small models have small contexts, in which all of it must fit
    shown, max_tokens = min(_TEXT_TOKENS, quarter), min(_SET_TOKENS if several else _LABEL_TOKENS, quarter)
    known, examples = (
        [_as_example(model, text, ", ".join(has), shown) for text, has in zip(part.texts, part.sets, strict=True)]
        for part in (train, test)
    )
    scored = len(labels) <= _MAX_SCORED_LABELS and not several
    read = _set_reader(labels) if several else _single_reader(labels)

    def given(prompt: FewShotPrompt, some: Sequence[Example]) -> LabelSets:
        if scored:
            return [(label,) for label in choose_labels(model, prompt, some, labels)]
        fitting = [fits(prompt.render, each, context - max_tokens) for each in some]
        written = iter(generate_answers(model, prompt, list(compress(some, fitting)), max_tokens))
        return [read(next(written) if has_room else "") for has_room in fitting]

    def quality(prompt: FewShotPrompt, examples: Sequence[Example]) -> float:
        some = evenly_spaced(examples, MAX_QUALITY_EXAMPLES)
        true = [read(example.messages[-1].content) for example in some]
        # A base model seldom gets a whole set right: micro-F1 tells prompts apart better than exact sets.
        return _measures(given(prompt, some), true, several)[several].estimate

    instruction = label_instruction(labels, multi_label=several)
    if known:
        with console.progress("the base's best way", num_trials(model, instruction), "ways") as bar:
            prompt = best_prompt(model, known, instruction=instruction, quality=quality, advance=bar.advance)
    else:
        prompt = default_prompt(model, instruction)
    with console.progress("labels of the base", len(examples), "texts") as bar:
        found: list[tuple[str, ...]] = []
        for start in range(0, len(examples), MAX_QUALITY_EXAMPLES):
            part = examples[start : start + MAX_QUALITY_EXAMPLES]
            found += given(prompt, part)
            bar.advance(len(part))
    how = "the likeliest of the labels" if scored else "what it writes"
    best = f"in its best way ({prompt.name})"
    asked_by = best if known else f"by {prompt.name}, for want of training texts to try ways on"
    return found, f"The base is no classifier: it was asked, {asked_by}; {how} counts as its answer."


def _single_reader(labels: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    read = label_reader(labels)
    return lambda text: (text if text in labels else read(text),)


def _set_reader(labels: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a function that finds the labels in a text, separated by commas, semicolons or lines."""
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


def _as_example(model: PromptedModel, text: str, label: str, max_tokens: int) -> Example:
    """Return a text with its label as question and answer; of a long text, the first `max_tokens`."""
    ids = model.tokenizer.encode(text[: 8 * max_tokens])
    shown = text if len(ids) <= max_tokens and len(text) <= 8 * max_tokens else ""
    shown = shown or model.tokenizer.decode(ids[:max_tokens])
    return Example((Message("user", shown), Message("assistant", label)))
