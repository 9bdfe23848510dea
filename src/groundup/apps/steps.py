"""The steps of an application, from its inputs to its result.

The steps are a generator that does not use a model directly. It yields texts to generate or to score, and receives the
results. The caller can therefore stream the output of a single request, or run many rows of a table in one batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.apps.chunks import split_into_chunks
from groundup.apps.copying import position_of, unsupported_facts, without_repeated_sentences
from groundup.apps.declaration import App
from groundup.apps.inputs import Given, check_inputs
from groundup.apps.json_text import as_text, in_shown_order
from groundup.apps.lettered_options import readable_value
from groundup.apps.prompter import Options, Pair, Prompter, TextModel
from groundup.core.errors import ConfigError
from groundup.core.plural import pluralize
from groundup.core.types import well_formed
from groundup.inference import Completion, GenerationRequest

_MAX_ROUNDS = 8  # maximum number of rounds that summarize summaries
_SEPARATOR = "\n\n"  # text between the outputs of consecutive chunks
_MAX_RETRIES = 4  # maximum number of retries if the items of a list repeat


@dataclass(frozen=True, slots=True)
class GenerateStep:
    """A step that generates texts.

    Attributes:
        requests: Generation requests, one per text.
        shown: Whether the texts are parts of the final output, which is streamed in order. If false, they are
            intermediate results.
    """

    requests: tuple[GenerationRequest, ...]
    shown: bool = False


@dataclass(frozen=True, slots=True)
class ScoreStep:
    """A step that computes the log-probabilities of given continuations.

    Attributes:
        pairs: Pairs of prompt and continuation, as token IDs.
    """

    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class AppResult:
    """Result of an application.

    Attributes:
        app: Name of the application.
        text: Output as readable text.
        value: Parsed JSON output, or the label. None if the output is text.
        probabilities: Maps each label to its probability.
        notes: Messages to the user, such as the number of chunks that were processed.
        parts: Number of chunks into which a long input was split.
        prompt_tokens: Total number of prompt tokens in all requests.
        completion_tokens: Total number of generated tokens in all requests.
        novelty: Novelty score of the input compared with the classifier's training texts (see
            `groundup.inference.novelty`).
        unlike: Whether the input is flagged as different from the training texts. None if the model has no novelty
            score.
        position: Start and end of a copied output in the input, in characters. None if it was not copied.
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
    position: tuple[int, int] | None = None


AppSteps = Generator[GenerateStep | ScoreStep, Any, AppResult]


def app_steps(app: App, given: Mapping[str, Any], text_model: TextModel, options: Options | None = None) -> AppSteps:
    """Yield the steps of an application, and return its result.

    Args:
        app: Application to run.
        given: Maps input names to values.
        text_model: Properties of the model.
        options: Generation settings that override the settings of the application.

    Yields:
        A `GenerateStep` or a `ScoreStep`. The caller sends a list of `Completion` objects for a `GenerateStep`, and the
        log-probability of each pair in nats for a `ScoreStep`.

    Returns:
        The result of the application.

    Raises:
        ConfigError: An input is invalid, or the inputs are too long for the context.
    """
    prompter = Prompter(app, text_model, check_inputs(app, given), options or Options())
    used = _Usage()
    if app.output.kind == "label":
        return (yield from _label(prompter, used))
    if prompter.fits(prompter.given):
        done, notes = yield from _generate_output(prompter, prompter.given, used)
        return _result(prompter, done.text, used, [done], notes)
    if app.long is None:
        raise _too_long(prompter)
    prompter.require_space()
    return (yield from {"join": _join, "reduce": _reduce, "end": _use_end}[app.long.strategy](prompter, used))


def prompt_output_pair(app: App, given: Mapping[str, Any], text_model: TextModel, output: str) -> Pair:
    """Return the token IDs of a prompt and the token IDs of an output that follows the prompt.

    Args:
        app: Application that builds the prompt.
        given: Maps input names to values.
        text_model: Properties of the model.
        output: Text of the output.

    Raises:
        ConfigError: An input is invalid, or the prompt and the output together do not fit into the context.
    """
    prompter = Prompter(app, text_model, check_inputs(app, given))
    prompt_ids, output_ids = prompter.prompt_and_output(prompter.given, output)
    if len(prompt_ids) + len(output_ids) > text_model.context_length:
        raise _too_long(prompter)
    return prompt_ids, output_ids


@dataclass(slots=True)
class _Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, done: Sequence[Completion]) -> None:
        self.prompt_tokens += sum(each.prompt_tokens for each in done)
        self.completion_tokens += sum(len(each.token_ids) for each in done)


def _generate(
    prompter: Prompter, given: Sequence[Given], used: _Usage, *, chunk: bool = False, shown: bool = False
) -> Generator[GenerateStep, list[Completion], list[Completion]]:
    done = yield GenerateStep(tuple(prompter.request(each, chunk=chunk) for each in given), shown)
    used.add(done)
    return done


def _generate_output(
    prompter: Prompter, given: Given, used: _Usage
) -> Generator[GenerateStep, list[Completion], tuple[Completion, list[str]]]:
    """Generate the output, and return it with messages to the user.

    A grammar cannot enforce that the items of a list differ, or that a summary has only numbers and names of its text.
    If an output has such faults, it is generated again at a higher temperature. The output with the smallest number of
    faults is returned.
    """
    app = prompter.app
    (best,) = yield from _generate(prompter, [given], used, shown=not app.decoding.facts_from)
    faults = _faults(prompter, best.text)
    for attempt in range(1, _MAX_RETRIES + 1):
        if not faults:
            return best, []
        (other,) = yield GenerateStep((prompter.request(given, attempt=attempt),))
        used.add([other])
        if len(found := _faults(prompter, other.text)) < len(faults):
            best, faults = other, found
    if not faults:
        return best, []
    if app.decoding.facts_from:
        return best, [f"Not in the {app.decoding.facts_from}: {', '.join(faults)}. Check this output."]
    return best, [f"Items of {' or '.join(app.output.distinct)} repeat in each of {_MAX_RETRIES + 1} attempts."]


def _faults(prompter: Prompter, text: str) -> list[str]:
    """Return the repeated items of an output, or its numbers and names that do not occur in the input."""
    output, source = prompter.app.output, prompter.app.decoding.facts_from
    if output.distinct:
        return ["repeated"] * _repetitions(readable_value(text, prompter.app.output.options), output.distinct)
    return unsupported_facts(text, str(prompter.given[source])) if source else []


def _repetitions(value: Any, names: Sequence[str]) -> int:
    """Count the repeated items of lists that have one of these names, and the repeated texts between list items."""
    if isinstance(value, list):
        texts = [[item[name] for item in value if isinstance(item, dict) and name in item] for name in names]
        repeated = sum(_repeated([each for each in found if isinstance(each, str)]) for found in texts)
        return repeated + sum(_repetitions(item, names) for item in value)
    if not isinstance(value, dict):
        return 0
    found = sum(_repetitions(item, names) for item in value.values())
    return found + sum(_repeated(value[name]) for name in names if isinstance(value.get(name), list))


def _repeated(items: Sequence[Any]) -> int:
    return len(items) - len({json.dumps(item, ensure_ascii=False).casefold().strip('" .,;:!?') for item in items})


def _split(prompter: Prompter, text: str, *, chunk: bool) -> list[str]:
    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in prompter.text_model.tokenizer.encode_batch(texts)]

    return split_into_chunks(text, count, prompter.max_input_tokens(chunk=chunk))


def _with(prompter: Prompter, texts: Sequence[str]) -> list[Given]:
    assert prompter.app.long is not None
    return [prompter.given | {prompter.app.long.input: text} for text in texts]


def _join(prompter: Prompter, used: _Usage) -> AppSteps:
    chunks = _split(prompter, prompter.text, chunk=False)
    done = yield from _generate(prompter, _with(prompter, chunks), used, shown=True)
    text = _SEPARATOR.join(each.text.strip() for each in done)
    return _result(prompter, text, used, done, [f"Processed in {pluralize(len(chunks), 'chunk')}."], len(chunks))


def _reduce(prompter: Prompter, used: _Usage) -> AppSteps:
    text, num_chunks = prompter.text, 0
    for _ in range(_MAX_ROUNDS):
        chunks = _split(prompter, text, chunk=True)
        num_chunks = num_chunks or len(chunks)
        summaries = yield from _generate(prompter, _with(prompter, chunks), used, chunk=True)
        # If the model generates no text for a chunk, the beginning of the chunk is used instead of a summary.
        texts = [each.text.strip() or chunk.strip()[:200] for each, chunk in zip(summaries, chunks, strict=True)]
        shorter = _SEPARATOR.join(texts)
        (given,) = _with(prompter, [shorter])
        if prompter.fits(given):
            done, notes = yield from _generate_output(prompter, given, used)
            notes.insert(0, f"Summarized {pluralize(num_chunks, 'chunk')} first.")
            return _result(prompter, done.text, used, [done], notes, num_chunks)
        if prompter.num_tokens(shorter) >= prompter.num_tokens(text):
            break
        text = shorter
    raise ConfigError(
        f"{prompter.app.name}: {len(prompter.text):,} characters are too long for this model",
        rule="the model's summaries of the chunks are not shorter than the chunks",
        fix="Use another model, or a shorter input.",
    )


def _use_end(prompter: Prompter, used: _Usage) -> AppSteps:
    text = prompter.text
    last = _split(prompter, text, chunk=False)[-1]
    (done,) = yield from _generate(prompter, _with(prompter, [last]), used, shown=True)
    note = f"The text is too long: the model has read only the last {len(last):,} of {len(text):,} characters."
    return _result(prompter, done.text, used, [done], [note])


def _label(prompter: Prompter, used: _Usage) -> AppSteps:
    output, given = prompter.app.output, prompter.given
    labels = output.labels or tuple(given[output.labels_from])
    name = prompter.app.first.name
    texts = [given[name]]
    if not prompter.fits(given):
        if prompter.app.long is None:
            raise _too_long(prompter)
        prompter.require_space()
        texts = _split(prompter, given[name], chunk=False)
    scored = [prompter.label_pairs(given | {name: text}, labels) for text in texts]
    pairs = [pair for of_text in scored for group in of_text for pair in group]
    nats = iter((yield ScoreStep(tuple(pairs))))
    used.prompt_tokens += sum(len(prompt) + len(ids) for prompt, ids in pairs)
    sums = dict.fromkeys(labels, 0.0)
    for of_text in scored:
        own, *neutral = [[next(nats) for _ in labels] for _ in of_text]
        # Calibrate: subtract the mean score that each label gets after neutral texts (Zhao et al. 2021).
        prior = [sum(scores) / len(neutral) for scores in zip(*neutral, strict=True)]
        calibrated = _softmax([a - b for a, b in zip(own, prior, strict=True)])
        for label, probability in zip(labels, calibrated, strict=True):
            sums[label] += probability / len(texts)
    label = max(sums, key=lambda each: sums[each])
    notes = (f"Split into {len(texts):,} chunks; the probabilities are means.",) if len(texts) > 1 else ()
    return AppResult(prompter.app.name, label, label, sums, notes, len(texts), used.prompt_tokens)


def _softmax(scores: Sequence[float]) -> list[float]:
    highest = max(scores)
    exponentials = [math.exp(score - highest) for score in scores]
    return [each / sum(exponentials) for each in exponentials]


def _result(
    prompter: Prompter,
    text: str,
    used: _Usage,
    done: Sequence[Completion],
    notes: Sequence[str] = (),
    num_chunks: int = 1,
) -> AppResult:
    all_notes = list(notes)
    if any(each.finish_reason == "length" for each in done):
        all_notes.append(f"The output was cut at {prompter.max_tokens:,} tokens. Increase max_tokens for more.")
    value = None
    if prompter.schema is not None:
        value = in_shown_order(readable_value(text, prompter.app.output.options), prompter.schema)
        text = as_text(value, prompter.app.output.lettered)
    elif prompter.app.decoding.facts_from:
        text = without_repeated_sentences(text)
    decoding = prompter.app.decoding
    copied = value is None and text.strip() not in decoding.copy_or
    source = decoding.copy_from if copied else ""
    return AppResult(
        prompter.app.name,
        well_formed(text).strip(),
        value,
        notes=tuple(all_notes),
        parts=num_chunks,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        position=position_of(text, str(prompter.given[source])) if source else None,
    )


def _too_long(prompter: Prompter) -> ConfigError:
    context = prompter.text_model.context_length
    return ConfigError(
        f"{prompter.app.name}: the inputs do not fit into this model's context of {context:,} tokens",
        rule=f"inputs, prompt and an output of up to {prompter.max_tokens:,} tokens share it",
        fix="Give shorter inputs, or reduce max_tokens.",
    )
