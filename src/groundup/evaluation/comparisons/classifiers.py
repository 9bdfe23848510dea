"""Comparison of a classifier with another classifier or with a prompted language model, on held-out texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.types import Example, InferenceDtype, Message
from groundup.data.held_out import HeldOut
from groundup.data.labels.reading import Labeled
from groundup.data.tables import evenly_spaced
from groundup.evaluation.baselines import label_baselines, label_set_baselines
from groundup.evaluation.comparisons.examples import Comparison, ComparisonReport
from groundup.evaluation.metrics import Measure, label_parser, label_sets
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
from groundup.hub.adapted import is_adapter_of
from groundup.hub.loading import OpenedClassifier, open_classifier
from groundup.hub.resolve import is_classifier
from groundup.inference.classification import above_threshold, predict_texts
from groundup.inference.prompting import fits
from groundup.kernels import ComputeDtype, cast_for_inference

LabelSets = Sequence[tuple[str, ...]]
"""Labels of each text. For single-label data, each tuple has exactly one label."""

_MAX_SCORED_LABELS = 12  # If there are more labels, the model generates a label instead of scoring every label.
_LABEL_TOKENS, _SET_TOKENS = 24, 64  # Maximum number of tokens to generate.
_TEXT_TOKENS = 200  # Longer texts are truncated to this number of tokens in a prompt.


def open_compared(
    before: Path,
    after: Path,
    device: str | None,
    dtype: ComputeDtype,
    console: Console,
    *,
    generation: InferenceDtype = "auto",
) -> tuple[PromptedModel | OpenedClassifier, OpenedClassifier]:
    """Load a classifier, and the other classifier or the language model with which it is compared.

    Args:
        before: path of the classifier or language model to compare with.
        after: path of the classifier to evaluate.
        device: device to compute on, or None for a GPU if available.
        dtype: data type in which texts are classified and given labels are scored.
        console: console that prints notes.
        generation: weight format in which a language model generates labels.

    Returns:
        The loaded models `before` and `after`.

    Raises:
        DataError: a model does not exist.
        FormatError: a model is damaged.
    """
    new = open_classifier(after, device=device, base=before if is_adapter_of(after, before) else None)
    cast_for_inference(new.model, dtype)
    if not is_classifier(before):
        return open_prompted(before, before, device, dtype, console, generation=generation), new
    old = open_classifier(before, device=device)
    cast_for_inference(old.model, dtype)
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
    """Compare a classifier with another classifier or with a prompted language model by their predicted labels.

    The predictions are scored as multi-label data if `after` is a multi-label classifier.

    Args:
        before: classifier or language model to compare with.
        after: classifier to evaluate.
        held_out: test texts, and training texts for few-shot prompts and baselines.
        console: console that prints progress.
        max_examples: maximum number of test texts if `before` is a language model.
        seed: seed of the bootstrap.

    Returns:
        The comparisons.

    Raises:
        DataError: some texts have several labels, but `after` predicts only one label per text.
    """
    multi_label, train, test = after.model.multi_label, held_out.train, held_out.test
    if test.multi_label and not multi_label:
        raise DataError(
            "--data: some texts have several labels",
            rule=f"{after.directory} predicts one label per text",
            fix="Give data with one label per text, or a multi-label classifier.",
        )
    if not isinstance(before, OpenedClassifier):
        test = test.only(evenly_spaced(range(len(test)), max_examples))
    new_labels = _classified(after, test.texts, multi_label, "fine-tuned", console)
    notes = [*held_out.notes]
    if isinstance(before, OpenedClassifier):
        old_labels = _classified(before, test.texts, multi_label, "base", console)
    else:
        old_labels, how = _prompted(before, train, test, after.labels, multi_label, console)
        notes.append(how)
    simple = _baselines(train, test.texts, multi_label) if train.texts else {}
    scores = {name: _measures(found, test.sets, multi_label) for name, found in simple.items()}
    pairs = zip(*(_measures(found, test.sets, multi_label) for found in (old_labels, new_labels)), strict=True)
    what = f"{len(test):,} texts"
    comparisons = [
        Comparison(old, new, seed, "task", what, {name: found[place] for name, found in scores.items()})
        for place, (old, new) in enumerate(pairs)
    ]
    return ComparisonReport(comparisons, notes)


def _measures(predicted: LabelSets, true: LabelSets, multi_label: bool) -> list[Measure]:
    if multi_label:
        return label_sets(predicted, true)
    return single_labels([label for (label,) in predicted], [label for (label,) in true])


def _baselines(train: Labeled, test: Sequence[str], multi_label: bool) -> dict[str, LabelSets]:
    if multi_label:
        return dict(label_set_baselines(train.texts, train.sets, test))
    found = label_baselines(train.texts, train.labels, test)
    return {name: [(label,) for label in labels] for name, labels in found.items()}


def _classified(
    opened: OpenedClassifier, texts: Sequence[str], multi_label: bool, who: str, console: Console
) -> LabelSets:
    with console.progress(f"labels of the {who} model", len(texts), "texts") as bar:
        found_EC = predict_texts(opened, texts, advance=bar.advance).probabilities
    if multi_label and opened.model.multi_label:
        return [tuple(opened.labels[place] for place in has_C.nonzero()[0]) for has_C in above_threshold(found_EC)]
    return [(opened.labels[place],) for place in found_EC.argmax(1)]


def _prompted(
    model: PromptedModel, train: Labeled, test: Labeled, labels: Sequence[str], multi_label: bool, console: Console
) -> tuple[LabelSets, str]:
    """Return the labels that a language model predicts with its best prompt, and a note about this prompt."""
    context = model.model.config.context_length
    quarter = context // 4  # The prompt must also fit into the short context length of small models.
    shown, max_tokens = min(_TEXT_TOKENS, quarter), min(_SET_TOKENS if multi_label else _LABEL_TOKENS, quarter)
    known, examples = (
        [_as_example(model, text, ", ".join(has), shown) for text, has in zip(part.texts, part.sets, strict=True)]
        for part in (train, test)
    )
    scored = len(labels) <= _MAX_SCORED_LABELS and not multi_label
    read = _label_set_parser(labels) if multi_label else _single_label_parser(labels)

    def given(prompt: FewShotPrompt, some: Sequence[Example]) -> LabelSets:
        if scored:
            return [(label,) for label in choose_labels(model, prompt, some, labels)]
        fitting = [fits(prompt.render, each, context - max_tokens) for each in some]
        written = iter(generate_answers(model, prompt, list(compress(some, fitting)), max_tokens))
        return [read(next(written) if fits_context else "") for fits_context in fitting]

    def quality(prompt: FewShotPrompt, examples: Sequence[Example]) -> float:
        some = evenly_spaced(examples, MAX_QUALITY_EXAMPLES)
        true = [read(example.messages[-1].content) for example in some]
        # A base model rarely predicts all labels of a text correctly. Therefore, micro-F1 distinguishes prompts better
        # than exact match.
        return _measures(given(prompt, some), true, multi_label)[multi_label].estimate

    instruction = label_instruction(labels, multi_label=multi_label)
    if known:
        with console.progress("search for the base model's prompt", num_trials(model, instruction), "prompts") as bar:
            prompt = best_prompt(model, known, instruction=instruction, quality=quality, advance=bar.advance)
    else:
        prompt = default_prompt(model, instruction)
    with console.progress("labels of the base model", len(examples), "texts") as bar:
        found: list[tuple[str, ...]] = []
        for start in range(0, len(examples), MAX_QUALITY_EXAMPLES):
            part = examples[start : start + MAX_QUALITY_EXAMPLES]
            found += given(prompt, part)
            bar.advance(len(part))
    how = "the most likely label" if scored else "the generated text"
    asked = f"the best prompt ({prompt.name})" if known else f"{prompt.name}, because there are no training texts"
    return found, f"The base is a language model, prompted with {asked}; {how} counts as its prediction."


def _single_label_parser(labels: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    read = label_parser(labels)
    return lambda text: (text if text in labels else read(text),)


def _label_set_parser(labels: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Return a function that parses a text in which labels are separated by commas, semicolons or line breaks."""
    read, marks = label_parser(labels), re.compile("[,;\n]")
    # Labels that contain a separator are searched first. Long labels come first, as they may contain shorter labels.
    with_marks = sorted(filter(marks.search, labels), key=len, reverse=True)

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
    """Return a conversation in which the user gives a text, truncated to `max_tokens`, and the answer is its label."""
    ids = model.tokenizer.encode(text[: 8 * max_tokens])
    shown = text if len(ids) <= max_tokens and len(text) <= 8 * max_tokens else ""
    shown = shown or model.tokenizer.decode(ids[:max_tokens])
    return Example((Message("user", shown), Message("assistant", label)))
