"""Two models on the same held-out examples: answers, general text, questions with choices.

Shape letters: E examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.types import Example, MetricName
from groundup.data.choices import Choice
from groundup.data.tables import spread
from groundup.evaluation.asking import JUDGED_ON, Asked, Way, best_way, hint_at, untried_way, ways_tried, write_answers
from groundup.evaluation.baselines import baselines
from groundup.evaluation.bpb import BitsPerByte, bits_per_byte, encode_texts, model_nll
from groundup.evaluation.choices import right_choices, score_choices
from groundup.evaluation.comparison import paired_bits
from groundup.evaluation.metrics import Measure, mean, measures, refusals
from groundup.evaluation.rendering import fits
from groundup.evaluation.responses import score_responses
from groundup.evaluation.uplift import Line, Uplift
from groundup.hub.resolve import OpenedModel

_TRANSCRIPTS = 3
_LONGEST = 512  # tokens of an answer


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What the models are compared on.

    Attributes:
        learned: training examples, to show and to choose the way by.
        tested: held-out examples.
        refusal: how an answer that says "not there" begins; empty where none is due.
        max_tokens: of an answer; None: from the data's own.
        labels: all that there are, where answers are labels; see `measures`.
    """

    metric: MetricName
    learned: Sequence[Example]
    tested: Sequence[Example]
    refusal: str = ""
    max_tokens: int | None = None
    labels: Sequence[str] = ()


def compare_answers(
    before: Asked, after: Asked, task: Task, way_after: Way | None, console: Console, *, seed: int = 0
) -> Uplift:
    """Answers to held-out questions.

    Args:
        way_after: how the tuned model is asked; None: its best way is looked for as the base's is.

    Raises:
        DataError: no held-out example fits into both models' contexts.
    """
    max_tokens = task.max_tokens or _usual_length(after, task)
    ways = [
        way or _best_way(model, task, max_tokens, who, console)
        for model, way, who in ((before, None, "the base's best way"), (after, way_after, "its best way"))
    ]
    models = (before, after)
    tested = [
        example
        for example in task.tested
        if all(_has_room(model, way, example, max_tokens) for model, way in zip(models, ways, strict=True))
    ]
    if not tested:
        raise DataError(
            f"{len(task.tested):,} held-out examples: none fits into {before.model.config.context_length:,} tokens",
            rule="an example is scored with all that stands before it",
            fix="Give shorter examples to test on, or models with a longer context.",
        )
    references = [example.messages[-1].content for example in tested]
    what = f"{len(tested):,} answers"
    lines: list[Line] = []
    shown = tested if task.metric != "likelihood" or task.refusal else tested[:_TRANSCRIPTS]
    written = []
    for model, way, who in zip(models, ways, ("base", "tuned"), strict=True):
        with console.progress(f"answers of the {who} model", len(shown), "answers") as bar:
            written.append(write_answers(model, way, shown, max_tokens, advance=bar.advance))
    if task.metric != "likelihood":
        learned, prompts = [_pair(example) for example in task.learned], [_pair(example)[0] for example in tested]
        simple = baselines(task.metric, learned, prompts, labels=task.labels)
        rivals = {name: measures(task.metric, texts, references, labels=task.labels) for name, texts in simple.items()}
        both = (measures(task.metric, texts, references, labels=task.labels) for texts in written)
        for place, (theirs, ours) in enumerate(zip(*both, strict=True)):
            beside = {name: found[place] for name, found in rivals.items()}
            lines.append(Line("task", what, theirs, ours, beside, seed))
    bits = []
    for model, way in zip(models, ways, strict=True):
        with console.progress("scoring", len(tested), "answers") as bar:
            nll_E = score_responses(
                model.model, model.tokenizer, tested, way.renderer(model), advance=bar.advance
            ).nll_E
        sizes = [sum(len(m.content.encode()) for m in each.messages if m.role == "assistant") for each in tested]
        bits.append(_bits("bits per byte of the answers", nll_E / math.log(2), np.array(sizes)))
    lines.append(Line("task", what, bits[0], bits[1], seed=seed))
    if task.refusal:
        both = (refusals(texts, references, task.refusal) for texts in written)
        lines += [Line("task", what, theirs, ours, seed=seed) for theirs, ours in zip(*both, strict=True)]
    notes = [
        f"The base was asked in its best way, found on training examples: {ways[0].name}."
        if task.learned
        else f"The base was asked by {ways[0].name}: no training examples, to show it or to find its best way on.",
        f"The tuned model was asked by {ways[1].name}.",
    ]
    if len(tested) < len(task.tested):
        notes.append(f"{len(task.tested) - len(tested):,} examples are too long for one of the models: left out.")
    columns = (tested, *written, references)
    transcripts = [
        {"question": example.messages[-2].content, "base": theirs, "tuned": ours, "the data": reference}
        for example, theirs, ours, reference in list(zip(*columns, strict=False))[:_TRANSCRIPTS]
    ]
    return Uplift(lines, notes, transcripts)


def compare_text(
    before: OpenedModel, after: OpenedModel, texts: Sequence[str], named: str, console: Console, *, seed: int = 0
) -> Line:
    """Bits per byte of general text: what tuning has made a model forget."""
    scores: list[BitsPerByte] = []
    for opened, who in ((before, "base"), (after, "tuned")):
        documents = encode_texts(texts, opened.tokenizer)
        with console.progress(f"general text, {who} model", int(documents.lengths.sum()), "tokens") as bar:
            scores.append(
                bits_per_byte(
                    model_nll(opened.model),
                    documents,
                    context_length=min(2048, before.model.config.context_length, after.model.config.context_length),
                    bos_id=opened.tokenizer.bos_id,
                    batch_size=4,
                    device=opened.model.lm_head.weight.device,
                    advance=bar.advance,
                )
            )
    new, old, sizes = paired_bits(scores[1], scores[0])
    name = "bits per byte of general text"
    return Line("general", named, _bits(name, old, sizes), _bits(name, new, sizes), seed=seed)


def compare_choices(
    before: OpenedModel, after: OpenedModel, items: Sequence[Choice], console: Console, *, seed: int = 0
) -> Line:
    """Questions with choices: the share of which the likeliest is right."""
    found = []
    for opened, who in ((before, "base"), (after, "tuned")):
        with console.progress(f"questions, {who} model", sum(len(item.choices) for item in items), "choices") as bar:
            score = score_choices(opened.model, opened.tokenizer, items, seed=seed, advance=bar.advance)
        found.append(mean("questions with choices", 100 * right_choices(score.loglikelihoods, items)))
    guess = mean("questions with choices", [100 / len(item.choices) for item in items])
    return Line("general", f"{len(items):,} questions", found[0], found[1], {"guessing": guess}, seed)


def _bits(name: str, bits_E: np.ndarray, bytes_E: np.ndarray) -> Measure:
    return mean(name, bits_E, bytes_E, unit="bits per byte", less=True)


def _pair(example: Example) -> tuple[str, str]:
    """The last question and its answer."""
    return example.messages[-2].content, example.messages[-1].content


def _usual_length(asked: Asked, task: Task) -> int:
    """Room for nearly all of the data's own answers, and somewhat more."""
    sizes = [len(asked.tokenizer.encode(_pair(example)[1])) for example in spread(task.tested, 400)]
    return min(_LONGEST, 8 + int(1.25 * float(np.quantile(sizes, 0.95))))


def _has_room(asked: Asked, way: Way, example: Example, max_tokens: int) -> bool:
    context = asked.model.config.context_length
    return fits(way.renderer(asked), example, context - max_tokens)


def _best_way(asked: Asked, task: Task, max_tokens: int, label: str, console: Console) -> Way:
    if not task.learned:  # a tested example would show its own answer
        return untried_way(asked)
    hint = hint_at(sorted({_pair(example)[1] for example in task.learned})) if task.labels else ""

    def quality(way: Way, examples: Sequence[Example]) -> float:
        some = [example for example in examples if _has_room(asked, way, example, max_tokens)][:JUDGED_ON]
        if not some:
            return float("-inf")
        written = write_answers(asked, way, some, max_tokens)
        references = [_pair(example)[1] for example in some]
        return measures(task.metric, written, references, labels=task.labels)[0].estimate

    with console.progress(label, ways_tried(asked, hint), "ways") as bar:
        return best_way(
            asked,
            task.learned,
            hint=hint,
            quality=None if task.metric == "likelihood" else quality,
            advance=bar.advance,
        )
