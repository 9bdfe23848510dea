"""How a model is asked: its chat template or plain text, with examples before the question or none; what suits it best.

A model that was not tuned knows nothing of a task until it is shown: what it can do is what it does when it is asked in
its best way. That way is found on training examples, never on those that are tested.

Shape letters: E examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from groundup.core.types import Example, Message
from groundup.data.tables import spread
from groundup.evaluation.beside_base import to_try_on
from groundup.evaluation.rendering import (
    CHAT_TEMPLATE,
    PLAIN_FORMATS,
    PromptFormat,
    Rendered,
    Renderer,
    chat_renderer,
    fits,
    plain_prompt,
    plain_renderer,
)
from groundup.evaluation.responses import response_tokens, score_responses
from groundup.inference import GenerationRequest, Sampling, complete_all
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer

JUDGED_ON = 16  # training examples that a way's answers are judged on, where a quality decides
_SHOTS = 4
_SHOT_TOKENS = 500  # of all shots together: they stand before every question
_TRIED_LONG = 12  # examples that ways with shots are tried on, which are several times as long
_FINALISTS = 3
_NAMED = 60  # labels at most that a hint names


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A model with what it takes to ask it.

    Attributes:
        template: None where the model has none.
        stop_ids: tokens that end what it writes.
    """

    model: Transformer
    tokenizer: Tokenizer
    template: ChatTemplate | None
    stop_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A way to ask.

    Attributes:
        format: None for the model's chat template.
        shots: examples with their answers that stand before the question.
        hint: what is asked for, said first.
    """

    format: PromptFormat | None
    shots: tuple[Example, ...] = ()
    hint: str = ""

    @property
    def name(self) -> str:
        """In words."""
        shown = f", {len(self.shots)} examples shown" if self.shots else ""
        return (self.format.name if self.format else CHAT_TEMPLATE) + shown + (", labels named" if self.hint else "")

    def around(self, example: Example, *, takes_system: bool = True) -> Example:
        """The example with all that stands before it."""
        messages = list(example.messages)
        system = [messages.pop(0).content] if messages[0].role == "system" else []
        said = "\n\n".join([self.hint, *system] if self.hint else system)
        told = [message for shot in self.shots for message in shot.messages if message.role != "system"] + messages
        if said and takes_system:
            told.insert(0, Message("system", said))
        elif said:
            told[0] = Message(told[0].role, f"{said}\n\n{told[0].content}")
        return Example(tuple(told))

    def renderer(self, asked: Asked) -> Renderer:
        """For the likelihood of an example's own answers, not of those in the shots."""
        if self.format is None:
            assert asked.template is not None
            render, takes_system = chat_renderer(asked.template), asked.template.takes_system
        else:
            render, takes_system = plain_renderer(asked.tokenizer, self.format), True
        answers = sum(message.role == "assistant" for shot in self.shots for message in shot.messages)
        return lambda example: _unscored(render(self.around(example, takes_system=takes_system)), answers)

    def request(self, asked: Asked, example: Example, max_tokens: int) -> GenerationRequest:
        """For the last answer of an example, the likeliest word by word."""
        sampling = Sampling(temperature=0.0)
        if self.format is None:
            assert asked.template is not None
            told = self.around(example, takes_system=asked.template.takes_system).messages[:-1]
            ids = tuple(asked.template.encode(told, add_generation_prompt=True))
            return GenerationRequest(prompt=ids, answers=True, sampling=sampling, max_tokens=max_tokens)
        stop = (self.format.after if "\n" in self.format.after else "\n",)
        prompt = plain_prompt(self.format, self.around(example).messages[:-1])
        return GenerationRequest(prompt=prompt, sampling=sampling, max_tokens=max_tokens, stop=stop)


def write_answers(
    asked: Asked,
    way: Way,
    examples: Sequence[Example],
    max_tokens: int,
    *,
    advance: Callable[[float], object] = lambda _: None,
) -> list[str]:
    """What a model answers to each example's last question."""
    requests = [way.request(asked, example, max_tokens) for example in examples]
    stop_ids = asked.template.stop_ids if way.format is None and asked.template else asked.stop_ids
    done = complete_all(asked.model, asked.tokenizer, requests, stop_ids=stop_ids, advance=advance)
    return [each.text.strip() for each in done]


def choose_labels(asked: Asked, way: Way, examples: Sequence[Example], labels: Sequence[str]) -> list[str]:
    """Which of the labels a model finds the likeliest answer to each example's last question."""
    told = [Example((*example.messages[:-1], Message("assistant", label))) for example in examples for label in labels]
    nll_E = score_responses(asked.model, asked.tokenizer, told, way.renderer(asked)).nll_E
    return [labels[place] for place in nll_E.reshape(len(examples), len(labels)).argmin(1)]


def best_way(
    asked: Asked,
    learned: Sequence[Example],
    *,
    hint: str = "",
    quality: Callable[[Way, Sequence[Example]], float] | None = None,
    advance: Callable[[float], object] = lambda _: None,
) -> Way:
    """The way in which a model does best on examples that nobody is tested on.

    All plain formats are tried; then the best of them and the chat template, with shots and without, with the hint and
    without. Where there is a quality, it decides between the three under which the answers are likeliest.

    Args:
        learned: examples to show and to try on.
        hint: what is asked for, such as `hint_at` says it; none where that is empty.
        quality: of a way on examples, more is better; None: the likelihood of the answers alone decides.
    """
    shots = _shots(asked, learned)
    tried = to_try_on(asked.tokenizer, [example for example in learned if example not in shots] or learned)
    few = spread(tried, _TRIED_LONG)

    def loss(way: Way, examples: Sequence[Example]) -> float:
        advance(1)
        return _loss(asked, way, examples)

    leading = [min((Way(format) for format in PLAIN_FORMATS), key=lambda way: loss(way, tried))]
    leading += [Way(None)] if asked.template else []
    ways = [
        replace(way, shots=shown, hint=said)
        for way in leading
        for said in ("", *([hint] if hint else []))
        for shown in ((), *([shots] if shots else []))
    ]
    losses = {way: loss(way, few) for way in ways}
    ranked = sorted((way for way in losses if np.isfinite(losses[way])), key=lambda way: losses[way])
    if not ranked:
        return leading[-1]
    if quality is None:
        return ranked[0]
    # Shots lower the loss of most models; whether they help, only answers tell. So one way without them stays in.
    finalists = ranked[: _FINALISTS - 1]
    finalists += next(([way] for way in ranked[_FINALISTS - 1 :] if way.shots != ranked[0].shots), ranked[2:3])
    return max(finalists, key=lambda way: quality(way, tried))


def untried_way(asked: Asked, hint: str = "") -> Way:
    """Where there are no examples to try ways on, but those that are tested: the chat template, or else questions and
    answers in plain text, with the hint."""
    return Way(None if asked.template else PLAIN_FORMATS[0], hint=hint)


def ways_tried(asked: Asked, hint: str = "") -> int:
    """How many ways `best_way` tries, for a progress bar."""
    leading = 1 + (asked.template is not None)
    return len(PLAIN_FORMATS) + leading * (4 if hint else 2)


def hint_at(labels: Sequence[str], *, several: bool = False) -> str:
    """What says that answers are of these labels; "" where they are too many to be named, or none.

    Args:
        several: an answer may name several of them.
    """
    if not labels or len(labels) > _NAMED:
        return ""
    of_these = "those of these that fit, with commas between" if several else "one of these only"
    return f"Answer with {of_these}: {', '.join(labels)}."


def _shots(asked: Asked, learned: Sequence[Example]) -> tuple[Example, ...]:
    """Short examples, from everywhere, of different answers where they can differ."""
    short = sorted(spread(learned, 400), key=lambda example: sum(len(m.content) for m in example.messages))
    short = short[: max(_SHOTS, len(short) // 2)]
    room = min(_SHOT_TOKENS, asked.model.config.context_length // 4)
    chosen: list[Example] = []
    answers = set[str]()
    for example in spread(short, 100):
        answer = example.messages[-1].content
        size = sum(len(asked.tokenizer.encode(message.content)) for message in example.messages)
        if len(chosen) < _SHOTS and answer not in answers and size <= room:
            room -= size
            chosen.append(example)
            answers.add(answer)
    return tuple(chosen)


def _loss(asked: Asked, way: Way, examples: Sequence[Example]) -> float:
    """Nats a token of the answers; infinite where an example with its shots is longer than the context."""
    render = way.renderer(asked)
    if not all(fits(render, example, asked.model.config.context_length) for example in examples):
        return float("inf")
    nll_E = score_responses(asked.model, asked.tokenizer, examples, render).nll_E
    return float(nll_E.sum() / response_tokens(asked.tokenizer, examples).sum())


def _unscored(rendered: Rendered, answers: int) -> Rendered:
    """Without the scores of the first answers."""
    if not answers:
        return rendered
    cut = [place for place, last in enumerate(rendered.last) if last][answers - 1] + 1
    cut += cut < len(rendered.ends) and rendered.ends[cut]
    scored, last, ends = ([False] * cut + column[cut:] for column in (rendered.scored, rendered.last, rendered.ends))
    return Rendered(rendered.ids, scored, last, ends)
