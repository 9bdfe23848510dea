"""Prompt formats: how a conversation becomes the token ids that a model reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from groundup.core.types import Example, Message, Role
from groundup.inference.request import GenerationRequest
from groundup.inference.sampling import Sampling
from groundup.tokenizer import ChatTemplate, Tokenizer

CandidateT = TypeVar("CandidateT")

_ANSWER_TOKENS = 8  # that must be left in the context after a conversation


@dataclass(frozen=True, slots=True)
class TextLayout:
    """A layout of conversations as plain text.

    Attributes:
        name: for a person.
        before: role -> text before each of its messages; a layout without "system" takes no system message.
        after: role -> text after each of its messages.
        stop: a model's answer ends before the first of these texts.
    """

    name: str
    before: Mapping[Role, str]
    after: Mapping[Role, str]
    stop: tuple[str, ...] = ()


def _layout(name: str, user: str, assistant: str, after: str, system: str = "") -> TextLayout:
    stop = after if "\n" in after else "\n"
    ends: dict[Role, str] = dict.fromkeys(("user", "assistant", "system"), after)
    return TextLayout(name, {"user": user, "assistant": assistant, "system": system}, ends, (stop,))


PLAIN_LAYOUTS = (
    _layout('lines "Q: ..." and "A: ..."', "Q: ", "A: ", "\n"),
    _layout('paragraphs "Question: ..." and "Answer: ..."', "Question: ", "Answer: ", "\n\n"),
    _layout('lines "User: ..." and "Assistant: ..."', "User: ", "Assistant: ", "\n", "System: "),
    _layout("a line each", "", "", "\n"),
    _layout("a paragraph each", "", "", "\n\n"),
    _layout("a line with a dash each", "- ", "- ", "\n"),
    _layout("all in one line", "", "", " "),
)
CONTINUATION = TextLayout("one text", {"user": "", "assistant": ""}, {"user": "", "assistant": "\n"})
"""For a base model: the model continues what was typed, and what is typed next begins a new line."""


@dataclass(frozen=True, slots=True)
class RenderedConversation:
    """A conversation as a model reads it.

    Attributes:
        ids: token ids, with BOS.
        scored: whether each token belongs to the text of an answer.
        last: whether each token is the last one of an answer's text.
        ends: whether each token ends an answer's turn; none does in plain text.
    """

    ids: list[int]
    scored: list[bool]
    last: list[bool]
    ends: list[bool]


Renderer = Callable[[Example], RenderedConversation]


class PromptFormat(Protocol):
    """A way to present a conversation to a model.

    Attributes:
        name: for a person.
        stop_ids: tokens that end an answer; None: those of the engine.
        stop: an answer ends before the first of these texts.
        takes_system: whether a system message can be part of it.
        answers: whether the model writes a text of its own, not a continuation of the last message.
    """

    name: str
    stop_ids: tuple[int, ...] | None
    stop: tuple[str, ...]
    takes_system: bool
    answers: bool

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt, BOS included, after which the model's answer comes."""
        ...

    def render(self, example: Example) -> RenderedConversation:
        """Return a whole conversation with the places of its answers."""
        ...


class ChatFormat:
    """The chat template that a model was fine-tuned with; see `PromptFormat`."""

    name = "the chat template"
    stop: tuple[str, ...] = ()
    answers = True

    def __init__(self, template: ChatTemplate) -> None:
        self.takes_system = template.takes_system
        self.stop_ids: tuple[int, ...] | None = template.stop_ids
        self._template = template

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._template.encode(messages, add_generation_prompt=True)

    def render(self, example: Example) -> RenderedConversation:
        stop_ids = self._template.stop_ids
        ids, trained = self._template.encode_labelled(example.messages)
        ends = [is_trained and token in stop_ids for token, is_trained in zip(ids, trained, strict=True)]
        scored = [is_trained and not end for is_trained, end in zip(trained, ends, strict=True)]
        last = [is_scored and end for is_scored, end in zip(scored, [*ends[1:], False], strict=True)]
        return RenderedConversation(ids, scored, last, ends)


class TextFormat:
    """Plain text in a layout; see `PromptFormat`."""

    answers = False

    def __init__(
        self, tokenizer: Tokenizer, stop_ids: tuple[int, ...] | None = None, layout: TextLayout = CONTINUATION
    ) -> None:
        self.name, self.stop = layout.name, layout.stop
        self.takes_system = "system" in layout.before
        self.stop_ids = stop_ids
        self.layout = layout
        self._tokenizer = tokenizer

    def text(self, messages: Sequence[Message]) -> str:
        """Return the text of a prompt, up to where the answer begins."""
        before, after = self.layout.before, self.layout.after
        turns = "".join(f"{before[m.role]}{m.content}{after[m.role]}" for m in messages[:-1])
        last = messages[-1]
        # The space before an answer belongs to its first token.
        return f"{turns}{before[last.role]}{last.content}" + (after[last.role] + before["assistant"]).rstrip(" ")

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._tokenizer.encode_prompt(self.text(messages))

    def render(self, example: Example) -> RenderedConversation:
        """Each message, with a space before it, is encoded apart from the text around it."""
        ids, scored, last = [self._tokenizer.bos_id], [False], [False]
        ending = ""
        for message in example.messages:
            before = ending + self.layout.before[message.role]
            space = before[len(before.rstrip(" ")) :]
            around = self._tokenizer.encode(before.rstrip(" "), continues=len(ids) > 1)
            words = self._tokenizer.encode(space + message.content, continues=len(ids) + len(around) > 1)
            answers = message.role == "assistant"
            ids += around + words
            scored += [False] * len(around) + [answers] * len(words)
            last += [False] * (len(around) + len(words) - 1) + [answers]
            ending = self.layout.after[message.role]
        return RenderedConversation(ids, scored, last, [False] * len(ids))


def plain_formats(tokenizer: Tokenizer, stop_ids: tuple[int, ...] | None = None) -> tuple[TextFormat, ...]:
    """Return the formats of `PLAIN_LAYOUTS`, in which a base model may be asked questions."""
    return tuple(TextFormat(tokenizer, stop_ids, layout) for layout in PLAIN_LAYOUTS)


def greedy_request(format: PromptFormat, messages: Sequence[Message], max_tokens: int) -> GenerationRequest:
    """Return the request for the most likely answer to a conversation."""
    return GenerationRequest(
        prompt=tuple(format.encode(messages)),
        answers=format.answers,
        sampling=Sampling(temperature=0.0),
        max_tokens=max_tokens,
        stop=format.stop,
        stop_ids=format.stop_ids,
    )


def fits(render: Renderer, example: Example, context_length: int) -> bool:
    """Return whether a conversation can be scored in one context, and its question asked with room for an answer."""
    return len(render(example).ids) <= context_length - _ANSWER_TOKENS


def best_candidate(
    candidates: Sequence[CandidateT], loss: Callable[[CandidateT], float]
) -> tuple[CandidateT, list[float]]:
    """Return the prompt format, or any other candidate, with the lowest loss, and the losses of all.

    Args:
        loss: on examples that are not in the test set; a loss that is not finite never wins unless all are.
    """
    losses = [loss(candidate) for candidate in candidates]
    ranked = [value if math.isfinite(value) else math.inf for value in losses]
    return candidates[ranked.index(min(ranked))], losses
