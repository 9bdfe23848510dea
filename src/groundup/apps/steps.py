"""What is done for one set of inputs, step by step: questions go out, what a model says to them comes in.

A piece of work is a generator, which knows no model: it yields what is to be written or scored and is sent what came
of it. So one person's request can be streamed, and a thousand rows of a table done side by side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.apps.chunks import split_into_chunks
from groundup.apps.declaration import App
from groundup.apps.inputs import Given, check_inputs
from groundup.apps.json_text import as_text
from groundup.apps.prompter import Options, Pair, Prompter, TextModel
from groundup.core.errors import ConfigError
from groundup.core.types import well_formed
from groundup.inference import Completion, GenerationRequest

_MOST_ROUNDS = 8
_BETWEEN = "\n\n"  # what stands between the answers about parts
_TRIES_AGAIN = 4  # where items are the same that must differ


@dataclass(frozen=True, slots=True)
class GenerateStep:
    """Texts to be written.

    Attributes:
        shown: they are what a person waits for, one after the other; else steps on the way.
    """

    requests: tuple[GenerationRequest, ...]
    shown: bool = False


@dataclass(frozen=True, slots=True)
class ScoreStep:
    """Continuations whose likelihood is asked for: prompt and continuation, as ids."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class AppResult:
    """What came out.

    Attributes:
        text: for a person.
        value: of JSON, what it says; of a label, its name; else None.
        probabilities: of each label, in the order of the labels.
        notes: what a person should know of how it was made.
        parts: how many parts the input was read in.
        prompt_tokens, completion_tokens: of all that was asked.
        novelty: of a classifier's input, how unlike the training texts it is (see `groundup.inference.novelty`).
        unlike: whether it is flagged as unlike them; None: not known.
    """

    app: str
    text: str
    value: Any = None
    probabilities: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parts: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    novelty: float | None = None
    unlike: bool | None = None


AppSteps = Generator[GenerateStep | ScoreStep, Any, AppResult]


def app_steps(app: App, given: Mapping[str, Any], text_model: TextModel, options: Options | None = None) -> AppSteps:
    """The steps from inputs to a result.

    Yields:
        `GenerateStep`, to be sent the list of its `Completion`s; `ScoreStep`, to be sent the nats of each pair.

    Raises:
        ConfigError: wrong inputs, or more of them than the model's context can take.
    """
    prompter = Prompter(app, text_model, check_inputs(app, given), options or Options())
    used = _Usage()
    if app.output.kind == "label":
        return (yield from _label(prompter, used))
    if prompter.fits(prompter.given):
        done, notes = yield from _last(prompter, prompter.given, used)
        return _result(prompter, done.text, used, [done], notes)
    if app.long is None:
        raise _too_long(prompter)
    prompter.require_room()
    return (yield from {"join": _joined, "reduce": _reduced, "end": _from_the_end}[app.long.strategy](prompter, used))


def prompt_output_pair(app: App, given: Mapping[str, Any], text_model: TextModel, output: str) -> Pair:
    """The ids of a prompt, and those of an output after it.

    Raises:
        ConfigError: wrong inputs, or both together do not fit into the context.
    """
    prompter = Prompter(app, text_model, check_inputs(app, given))
    prompt, said = prompter.followed(prompter.given, output)
    if len(prompt) + len(said) > text_model.context_length:
        raise _too_long(prompter)
    return prompt, said


@dataclass(slots=True)
class _Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, done: Sequence[Completion]) -> None:
        self.prompt_tokens += sum(each.prompt_tokens for each in done)
        self.completion_tokens += sum(len(each.token_ids) for each in done)


def _written(
    prompter: Prompter, given: Sequence[Given], used: _Usage, *, part: bool = False, shown: bool = False
) -> Generator[GenerateStep, list[Completion], list[Completion]]:
    done = yield GenerateStep(tuple(prompter.request(each, part=part) for each in given), shown)
    used.add(done)
    return done


def _last(
    prompter: Prompter, given: Given, used: _Usage
) -> Generator[GenerateStep, list[Completion], tuple[Completion, list[str]]]:
    """The answer that a person gets, and what to know of it.

    No grammar can promise that the items of a list differ. So where they do not the model is asked again, each time
    with more chance in it, and the answer with the fewest repetitions counts.
    """
    (best,) = yield from _written(prompter, [given], used, shown=True)
    distinct = prompter.app.output.distinct
    fewest = _repetitions(json.loads(best.text), distinct) if distinct else 0
    for again in range(1, _TRIES_AGAIN + 1):
        if not fewest:
            return best, []
        (other,) = yield GenerateStep((prompter.request(given, again=again),))
        used.add([other])
        if (repetitions := _repetitions(json.loads(other.text), distinct)) < fewest:
            best, fewest = other, repetitions
    note = f"In {' or '.join(distinct)} something stands twice: so it was in each of {_TRIES_AGAIN + 1} answers."
    return best, [note] if fewest else []


def _repetitions(value: Any, names: Sequence[str]) -> int:
    """How many items of the lists of these names say what one before them says."""
    if isinstance(value, list):
        return sum(_repetitions(item, names) for item in value)
    if not isinstance(value, dict):
        return 0
    found = sum(_repetitions(item, names) for item in value.values())
    for items in (value.get(name) for name in names):
        if isinstance(items, list):
            said = {json.dumps(item, ensure_ascii=False).casefold().strip('" .,;:!?') for item in items}
            found += len(items) - len(said)
    return found


def _parts(prompter: Prompter, text: str, *, part: bool) -> list[str]:
    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in prompter.text_model.tokenizer.encode_batch(texts)]

    return split_into_chunks(text, count, prompter.room(part=part))


def _with(prompter: Prompter, texts: Sequence[str]) -> list[Given]:
    assert prompter.app.long is not None
    return [prompter.given | {prompter.app.long.input: text} for text in texts]


def _joined(prompter: Prompter, used: _Usage) -> AppSteps:
    parts = _parts(prompter, prompter.text, part=False)
    done = yield from _written(prompter, _with(prompter, parts), used, shown=True)
    text = _BETWEEN.join(each.text.strip() for each in done)
    return _result(prompter, text, used, done, [f"Done in {len(parts):,} parts."], len(parts))


def _reduced(prompter: Prompter, used: _Usage) -> AppSteps:
    text, read = prompter.text, 0
    for _ in range(_MOST_ROUNDS):
        parts = _parts(prompter, text, part=True)
        read = read or len(parts)
        told = yield from _written(prompter, _with(prompter, parts), used, part=True)
        # Nothing must be lost because a model had nothing to say: then the part speaks for itself.
        said = [each.text.strip() or _beginning(part) for each, part in zip(told, parts, strict=True)]
        shorter = _BETWEEN.join(said)
        (given,) = _with(prompter, [shorter])
        if prompter.fits(given):
            done, notes = yield from _last(prompter, given, used)
            notes.insert(0, f"Read in {read:,} parts, each first put in short.")
            return _result(prompter, done.text, used, [done], notes, read)
        if prompter.tokens(shorter) >= prompter.tokens(text):
            break
        text = shorter
    raise ConfigError(
        f"{prompter.app.name}: {len(prompter.text):,} characters",
        rule="what a model says about parts of a long text is shorter than the text",
        fix="This model does not put things in short: take another one, or give less at a time.",
    )


def _from_the_end(prompter: Prompter, used: _Usage) -> AppSteps:
    text = prompter.text
    last = _parts(prompter, text, part=False)[-1]
    (done,) = yield from _written(prompter, _with(prompter, [last]), used, shown=True)
    note = (
        f"Too long to be read whole: what came of it goes on from the last {len(last):,} of {len(text):,} characters."
    )
    return _result(prompter, done.text, used, [done], [note])


def _label(prompter: Prompter, used: _Usage) -> AppSteps:
    output, given = prompter.app.output, prompter.given
    labels = output.labels or tuple(given[output.labels_from])
    name = prompter.app.first.name
    texts = [given[name]]
    if not prompter.fits(given):
        if prompter.app.long is None:
            raise _too_long(prompter)
        prompter.require_room()
        texts = _parts(prompter, given[name], part=False)
    asked = [prompter.labelled(given | {name: text}, labels) for text in texts]
    pairs = [pair for of_text in asked for group in of_text for pair in group]
    nats = iter((yield ScoreStep(tuple(pairs))))
    used.prompt_tokens += sum(len(prompt) + len(ids) for prompt, ids in pairs)
    sums = dict.fromkeys(labels, 0.0)
    for of_text in asked:
        own, *blank = [[next(nats) for _ in labels] for _ in of_text]
        # Each label counts beside what it is worth without a text: some words are just likelier (Zhao et al. 2021).
        worth = [sum(scores) / len(blank) for scores in zip(*blank, strict=True)]
        for label, share in zip(labels, _softmax([a - b for a, b in zip(own, worth, strict=True)]), strict=True):
            sums[label] += share / len(texts)
    label = max(sums, key=lambda each: sums[each])
    notes = (f"Read in {len(texts):,} parts; the probabilities are their means.",) if len(texts) > 1 else ()
    return AppResult(prompter.app.name, label, label, sums, notes, len(texts), used.prompt_tokens)


def _softmax(scores: Sequence[float]) -> list[float]:
    highest = max(scores)
    shares = [math.exp(score - highest) for score in scores]
    return [share / sum(shares) for share in shares]


def _result(
    prompter: Prompter,
    text: str,
    used: _Usage,
    done: Sequence[Completion],
    notes: Sequence[str] = (),
    parts: int = 1,
) -> AppResult:
    told = list(notes)
    if any(each.finish_reason == "length" for each in done):
        told.append(f"It ended because {prompter.max_tokens:,} tokens is all it may have: max_tokens gives it more.")
    value = None
    if prompter.grammar is not None:
        value = json.loads(text)
        text = as_text(value, prompter.app.output.lettered)
    return AppResult(
        prompter.app.name,
        well_formed(text).strip(),
        value,
        notes=tuple(told),
        parts=parts,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
    )


def _beginning(part: str) -> str:
    return part.strip()[:200]


def _too_long(prompter: Prompter) -> ConfigError:
    context = prompter.text_model.context_length
    return ConfigError(
        f"{prompter.app.name}: more than fits into this model's context of {context:,} tokens",
        rule=f"inputs, prompt and an answer of up to {prompter.max_tokens:,} tokens share it",
        fix="Give shorter inputs, or ask for a shorter answer (max_tokens).",
    )
