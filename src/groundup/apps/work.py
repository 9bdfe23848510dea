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

from groundup.apps.asking import Asking, Options, Pair, Speaker
from groundup.apps.declaration import App
from groundup.apps.inputs import Given, checked
from groundup.apps.parts import split_into_chunks
from groundup.apps.shown import as_text
from groundup.core.errors import ConfigError
from groundup.core.types import well_formed
from groundup.inference import Completion, GenerationRequest

_MOST_ROUNDS = 8
_BETWEEN = "\n\n"  # what stands between the answers about parts
_TRIES_AGAIN = 4  # where items are the same that must differ


@dataclass(frozen=True, slots=True)
class Write:
    """Texts to be written.

    Attributes:
        shown: they are what a person waits for, one after the other; else steps on the way.
    """

    requests: tuple[GenerationRequest, ...]
    shown: bool = False


@dataclass(frozen=True, slots=True)
class Score:
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


Work = Generator[Write | Score, Any, AppResult]


def work(app: App, given: Mapping[str, Any], speaker: Speaker, options: Options | None = None) -> Work:
    """The steps from inputs to a result.

    Yields:
        `Write`, to be sent the list of its `Completion`s; `Score`, to be sent the nats of each pair.

    Raises:
        ConfigError: wrong inputs, or more of them than the model's context can take.
    """
    asking = Asking(app, speaker, checked(app, given), options or Options())
    used = _Usage()
    if app.output.kind == "label":
        return (yield from _label(asking, used))
    if asking.fits(asking.given):
        done, notes = yield from _last(asking, asking.given, used)
        return _result(asking, done.text, used, [done], notes)
    if app.long is None:
        raise _too_long(asking)
    asking.require_room()
    return (yield from {"join": _joined, "reduce": _reduced, "end": _from_the_end}[app.long.how](asking, used))


def likely_pair(app: App, given: Mapping[str, Any], speaker: Speaker, output: str) -> Pair:
    """The ids of a prompt, and those of an output after it.

    Raises:
        ConfigError: wrong inputs, or both together do not fit into the context.
    """
    asking = Asking(app, speaker, checked(app, given))
    prompt, said = asking.followed(asking.given, output)
    if len(prompt) + len(said) > speaker.context_length:
        raise _too_long(asking)
    return prompt, said


@dataclass(slots=True)
class _Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, done: Sequence[Completion]) -> None:
        self.prompt_tokens += sum(each.prompt_tokens for each in done)
        self.completion_tokens += sum(len(each.token_ids) for each in done)


def _written(
    asking: Asking, given: Sequence[Given], used: _Usage, *, part: bool = False, shown: bool = False
) -> Generator[Write, list[Completion], list[Completion]]:
    done = yield Write(tuple(asking.request(each, part=part) for each in given), shown)
    used.add(done)
    return done


def _last(
    asking: Asking, given: Given, used: _Usage
) -> Generator[Write, list[Completion], tuple[Completion, list[str]]]:
    """The answer that a person gets, and what to know of it.

    No grammar can promise that the items of a list differ. So where they do not the model is asked again, each time
    with more chance in it, and the answer with the fewest repetitions counts.
    """
    (best,) = yield from _written(asking, [given], used, shown=True)
    distinct = asking.app.output.distinct
    fewest = _repetitions(json.loads(best.text), distinct) if distinct else 0
    for again in range(1, _TRIES_AGAIN + 1):
        if not fewest:
            return best, []
        (other,) = yield Write((asking.request(given, again=again),))
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


def _parts(asking: Asking, text: str, *, part: bool) -> list[str]:
    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in asking.speaker.tokenizer.encode_batch(texts)]

    return split_into_chunks(text, count, asking.room(part=part))


def _with(asking: Asking, texts: Sequence[str]) -> list[Given]:
    assert asking.app.long is not None
    return [asking.given | {asking.app.long.input: text} for text in texts]


def _joined(asking: Asking, used: _Usage) -> Work:
    parts = _parts(asking, asking.text, part=False)
    done = yield from _written(asking, _with(asking, parts), used, shown=True)
    text = _BETWEEN.join(each.text.strip() for each in done)
    return _result(asking, text, used, done, [f"Done in {len(parts):,} parts."], len(parts))


def _reduced(asking: Asking, used: _Usage) -> Work:
    text, read = asking.text, 0
    for _ in range(_MOST_ROUNDS):
        parts = _parts(asking, text, part=True)
        read = read or len(parts)
        told = yield from _written(asking, _with(asking, parts), used, part=True)
        # Nothing must be lost because a model had nothing to say: then the part speaks for itself.
        said = [each.text.strip() or _beginning(part) for each, part in zip(told, parts, strict=True)]
        shorter = _BETWEEN.join(said)
        (given,) = _with(asking, [shorter])
        if asking.fits(given):
            done, notes = yield from _last(asking, given, used)
            notes.insert(0, f"Read in {read:,} parts, each first put in short.")
            return _result(asking, done.text, used, [done], notes, read)
        if asking.tokens(shorter) >= asking.tokens(text):
            break
        text = shorter
    raise ConfigError(
        f"{asking.app.name}: {len(asking.text):,} characters",
        rule="what a model says about parts of a long text is shorter than the text",
        fix="This model does not put things in short: take another one, or give less at a time.",
    )


def _from_the_end(asking: Asking, used: _Usage) -> Work:
    text = asking.text
    last = _parts(asking, text, part=False)[-1]
    (done,) = yield from _written(asking, _with(asking, [last]), used, shown=True)
    note = (
        f"Too long to be read whole: what came of it goes on from the last {len(last):,} of {len(text):,} characters."
    )
    return _result(asking, done.text, used, [done], [note])


def _label(asking: Asking, used: _Usage) -> Work:
    output, given = asking.app.output, asking.given
    labels = output.labels or tuple(given[output.labels_from])
    name = asking.app.first.name
    texts = [given[name]]
    if not asking.fits(given):
        if asking.app.long is None:
            raise _too_long(asking)
        asking.require_room()
        texts = _parts(asking, given[name], part=False)
    asked = [asking.labelled(given | {name: text}, labels) for text in texts]
    pairs = [pair for of_text in asked for group in of_text for pair in group]
    nats = iter((yield Score(tuple(pairs))))
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
    return AppResult(asking.app.name, label, label, sums, notes, len(texts), used.prompt_tokens)


def _softmax(scores: Sequence[float]) -> list[float]:
    highest = max(scores)
    shares = [math.exp(score - highest) for score in scores]
    return [share / sum(shares) for share in shares]


def _result(
    asking: Asking,
    text: str,
    used: _Usage,
    done: Sequence[Completion],
    notes: Sequence[str] = (),
    parts: int = 1,
) -> AppResult:
    told = list(notes)
    if any(each.finish_reason == "length" for each in done):
        told.append(f"It ended because {asking.max_tokens:,} tokens is all it may have: max_tokens gives it more.")
    value = None
    if asking.grammar is not None:
        value = json.loads(text)
        text = as_text(value, asking.app.output.lettered)
    return AppResult(
        asking.app.name,
        well_formed(text).strip(),
        value,
        notes=tuple(told),
        parts=parts,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
    )


def _beginning(part: str) -> str:
    return part.strip()[:200]


def _too_long(asking: Asking) -> ConfigError:
    context = asking.speaker.context_length
    return ConfigError(
        f"{asking.app.name}: more than fits into this model's context of {context:,} tokens",
        rule=f"inputs, prompt and an answer of up to {asking.max_tokens:,} tokens share it",
        fix="Give shorter inputs, or ask for a shorter answer (max_tokens).",
    )
