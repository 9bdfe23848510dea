"""Prompt formats: chat templates and plain-text layouts that turn a conversation into token ids."""

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

_ANSWER_TOKENS = 8  # of the context that a conversation must leave free


@dataclass(frozen=True, slots=True)
class TextLayout:
    """A plain-text layout of conversations.

    Attributes:
        name: Display name.
        before: Role -> text before each of its messages. A layout without "system" does not support system messages.
        after: Role -> text after each of its messages.
        stop: Stop texts of a model's answer.
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
    _layout("one line per message", "", "", "\n"),
    _layout("one paragraph per message", "", "", "\n\n"),
    _layout("one list item per message", "- ", "- ", "\n"),
    _layout("one line for all messages", "", "", " "),
)
CONTINUATION = TextLayout("continuation", {"user": "", "assistant": ""}, {"user": "", "assistant": "\n"})
"""For a base model: the model continues the user's text, and the user's next message starts a new line."""


@dataclass(frozen=True, slots=True)
class RenderedConversation:
    """A tokenized conversation.

    Attributes:
        ids: Token ids, with BOS.
        scored: Whether each token belongs to the text of an answer.
        last: Whether each token is the last token of an answer's text.
        ends: Whether each token is a stop token after an answer; always False in a plain-text layout.
    """

    ids: list[int]
    scored: list[bool]
    last: list[bool]
    ends: list[bool]


Renderer = Callable[[Example], RenderedConversation]


class PromptFormat(Protocol):
    """A prompt format.

    Attributes:
        name: Display name.
        stop_ids: Stop tokens of an answer; None: the engine's stop tokens.
        stop: Stop texts of an answer.
        supports_system: Whether a conversation may have a system message.
        is_reply: See `GenerationRequest.is_reply`.
    """

    name: str
    stop_ids: tuple[int, ...] | None
    stop: tuple[str, ...]
    supports_system: bool
    is_reply: bool

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt, with BOS, up to where the answer starts."""
        ...

    def render(self, example: Example) -> RenderedConversation:
        """Return a tokenized conversation with its answers marked."""
        ...


class ChatFormat:
    """The prompt format of a model's chat template; see `PromptFormat`."""

    name = "the chat template"
    stop: tuple[str, ...] = ()
    is_reply = True

    def __init__(self, template: ChatTemplate) -> None:
        self.supports_system = template.supports_system
        self.stop_ids: tuple[int, ...] | None = template.stop_ids
        self._template = template

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt; see `PromptFormat`."""
        return self._template.encode(messages, add_generation_prompt=True)

    def render(self, example: Example) -> RenderedConversation:
        """Return a tokenized conversation; see `PromptFormat`."""
        stop_ids = self._template.stop_ids
        ids, trained = self._template.encode_labeled(example.messages)
        ends = [is_trained and token in stop_ids for token, is_trained in zip(ids, trained, strict=True)]
        scored = [is_trained and not end for is_trained, end in zip(trained, ends, strict=True)]
        last = [is_scored and end for is_scored, end in zip(scored, [*ends[1:], False], strict=True)]
        return RenderedConversation(ids, scored, last, ends)


class TextFormat:
    """The prompt format of a plain-text layout; see `PromptFormat`."""

    is_reply = False

    def __init__(
        self, tokenizer: Tokenizer, stop_ids: tuple[int, ...] | None = None, layout: TextLayout = CONTINUATION
    ) -> None:
        self.name, self.stop = layout.name, layout.stop
        self.supports_system = "system" in layout.before
        self.stop_ids = stop_ids
        self.layout = layout
        self._tokenizer = tokenizer

    def text(self, messages: Sequence[Message]) -> str:
        """Return the text of a prompt, up to where the answer starts."""
        before, after = self.layout.before, self.layout.after
        turns = "".join(f"{before[m.role]}{m.content}{after[m.role]}" for m in messages[:-1])
        last = messages[-1]
        # Byte-level BPE puts the space before an answer into the answer's first token.
        return f"{turns}{before[last.role]}{last.content}" + (after[last.role] + before["assistant"]).rstrip(" ")

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt; see `PromptFormat`."""
        return self._tokenizer.encode_prompt(self.text(messages))

    def render(self, example: Example) -> RenderedConversation:
        """Return a tokenized conversation. Each message is encoded separately, with the space before it."""
        ids, scored, last = [self._tokenizer.bos_id], [False], [False]
        ending = ""
        for message in example.messages:
            before = ending + self.layout.before[message.role]
            space = before[len(before.rstrip(" ")) :]
            around = self._tokenizer.encode(before.rstrip(" "), continues=len(ids) > 1)
            words = self._tokenizer.encode(space + message.content, continues=len(ids) + len(around) > 1)
            is_answer = message.role == "assistant"
            ids += around + words
            scored += [False] * len(around) + [is_answer] * len(words)
            last += [False] * (len(around) + len(words) - 1) + [is_answer]
            ending = self.layout.after[message.role]
        return RenderedConversation(ids, scored, last, [False] * len(ids))


def plain_formats(tokenizer: Tokenizer, stop_ids: tuple[int, ...] | None = None) -> tuple[TextFormat, ...]:
    """Return a format for each of `PLAIN_LAYOUTS`, to prompt base models.

    Args:
        tokenizer: The model's tokenizer.
        stop_ids: Stop tokens of an answer; None: the engine's stop tokens.
    """
    return tuple(TextFormat(tokenizer, stop_ids, layout) for layout in PLAIN_LAYOUTS)


def greedy_request(format: PromptFormat, messages: Sequence[Message], max_tokens: int) -> GenerationRequest:
    """Return a request that answers a conversation with greedy decoding.

    Args:
        format: The prompt format.
        messages: The conversation.
        max_tokens: Maximum number of tokens of the answer.
    """
    return GenerationRequest(
        prompt=tuple(format.encode(messages)),
        is_reply=format.is_reply,
        sampling=Sampling(temperature=0.0),
        max_tokens=max_tokens,
        stop=format.stop,
        stop_ids=format.stop_ids,
    )


def fits(render: Renderer, example: Example, context_length: int) -> bool:
    """Return whether a conversation fits into the context and leaves some tokens for an answer."""
    return len(render(example).ids) <= context_length - _ANSWER_TOKENS


def best_candidate(
    candidates: Sequence[CandidateT], loss: Callable[[CandidateT], float]
) -> tuple[CandidateT, list[float]]:
    """Return the candidate (such as a prompt format) with the lowest loss, and the losses of all candidates.

    Args:
        candidates: The candidates.
        loss: Returns a candidate's loss on examples outside the test set. NaN counts as infinity.
    """
    losses = [loss(candidate) for candidate in candidates]
    ranked = [value if math.isfinite(value) else math.inf for value in losses]
    return candidates[ranked.index(min(ranked))], losses
