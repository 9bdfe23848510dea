"""Prompt formats, which convert a conversation to token IDs: chat templates and plain-text layouts."""

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

_ANSWER_TOKENS = 8  # number of context tokens that a conversation must leave for an answer


@dataclass(frozen=True, slots=True)
class TextLayout:
    """A plain-text layout of conversations, for models without a chat template.

    Attributes:
        name: Name of the layout in messages.
        before: Maps each role to the text in front of a message. If the role "system" is missing, system messages are
            not supported.
        after: Maps each role to the text behind a message.
        stop: Texts at which the generation of an answer stops.
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
"""Layout for a base model: the model continues the user's text, and the next message of the user starts a new line."""


@dataclass(frozen=True, slots=True)
class RenderedConversation:
    """A conversation that was converted to tokens.

    Attributes:
        ids: Token IDs of the conversation, including BOS.
        scored: Whether each token belongs to the text of an answer.
        last: Whether each token is the last token in the text of an answer.
        ends: Whether each token is a stop token after an answer. Plain-text layouts have no stop tokens.
    """

    ids: list[int]
    scored: list[bool]
    last: list[bool]
    ends: list[bool]


Renderer = Callable[[Example], RenderedConversation]


class PromptFormat(Protocol):
    """Interface of a prompt format.

    Attributes:
        name: Name of the format in messages.
        stop_ids: IDs of the tokens that end an answer, or None for the stop tokens of the engine.
        stop: Texts at which the generation of an answer stops.
        supports_system: Whether a conversation may contain a system message.
        is_reply: Value for `GenerationRequest.is_reply`.
    """

    name: str
    stop_ids: tuple[int, ...] | None
    stop: tuple[str, ...]
    supports_system: bool
    is_reply: bool

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token IDs of a prompt, including BOS. The prompt ends where the answer starts."""
        ...

    def render(self, example: Example) -> RenderedConversation:
        """Convert a conversation to tokens, and mark the tokens of the answers."""
        ...


class ChatFormat:
    """Prompt format that uses the chat template of a model. It implements `PromptFormat`."""

    name = "the chat template"
    stop: tuple[str, ...] = ()
    is_reply = True

    def __init__(self, template: ChatTemplate) -> None:
        self.supports_system = template.supports_system
        self.stop_ids: tuple[int, ...] | None = template.stop_ids
        self._template = template

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token IDs of a prompt (see `PromptFormat.encode`)."""
        return self._template.encode(messages, add_generation_prompt=True)

    def render(self, example: Example) -> RenderedConversation:
        """Convert a conversation to tokens (see `PromptFormat.render`)."""
        stop_ids = self._template.stop_ids
        ids, trained = self._template.encode_labeled(example.messages)
        ends = [is_trained and token in stop_ids for token, is_trained in zip(ids, trained, strict=True)]
        scored = [is_trained and not end for is_trained, end in zip(trained, ends, strict=True)]
        last = [is_scored and end for is_scored, end in zip(scored, [*ends[1:], False], strict=True)]
        return RenderedConversation(ids, scored, last, ends)


class TextFormat:
    """Prompt format that uses a plain-text layout. It implements `PromptFormat`."""

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
        """Return the text of a prompt, which ends where the answer starts."""
        before, after = self.layout.before, self.layout.after
        turns = "".join(f"{before[m.role]}{m.content}{after[m.role]}" for m in messages[:-1])
        last = messages[-1]
        # The prompt ends without a space, because byte-level BPE makes this space a part of the answer's first token.
        return f"{turns}{before[last.role]}{last.content}" + (after[last.role] + before["assistant"]).rstrip(" ")

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token IDs of a prompt (see `PromptFormat.encode`)."""
        return self._tokenizer.encode_prompt(self.text(messages))

    def render(self, example: Example) -> RenderedConversation:
        """Convert a conversation to tokens. Each message is tokenized separately, together with the space before it."""
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


def format_for(
    tokenizer: Tokenizer, template: ChatTemplate | None, stop_ids: tuple[int, ...] | None = None
) -> ChatFormat | TextFormat:
    """Return the prompt format for questions: the chat template if there is one, otherwise "Question: ..." paragraphs.

    Args:
        tokenizer: Tokenizer of the model.
        template: Chat template of the model, or None.
        stop_ids: IDs of the tokens that end an answer, or None for the stop tokens of the engine.
    """
    return ChatFormat(template) if template is not None else TextFormat(tokenizer, stop_ids, PLAIN_LAYOUTS[1])


def plain_formats(tokenizer: Tokenizer, stop_ids: tuple[int, ...] | None = None) -> tuple[TextFormat, ...]:
    """Return one prompt format for each layout in `PLAIN_LAYOUTS`. Base models are prompted with these formats.

    Args:
        tokenizer: Tokenizer of the model.
        stop_ids: IDs of the tokens that end an answer, or None for the stop tokens of the engine.
    """
    return tuple(TextFormat(tokenizer, stop_ids, layout) for layout in PLAIN_LAYOUTS)


def greedy_request(format: PromptFormat, messages: Sequence[Message], max_tokens: int) -> GenerationRequest:
    """Return a request that generates the next answer of a conversation with greedy decoding.

    Args:
        format: Prompt format that the model expects.
        messages: Messages of the conversation.
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
    """Return whether a conversation fits into the context and leaves at least 8 tokens for an answer."""
    return len(render(example).ids) <= context_length - _ANSWER_TOKENS


def best_candidate(
    candidates: Sequence[CandidateT], loss: Callable[[CandidateT], float]
) -> tuple[CandidateT, list[float]]:
    """Return the candidate with the lowest loss, and the losses of all candidates. A candidate can be a prompt format.

    Args:
        candidates: Candidates to compare.
        loss: Function that returns the loss of a candidate on examples outside the test set. NaN counts as infinity.
    """
    losses = [loss(candidate) for candidate in candidates]
    ranked = [value if math.isfinite(value) else math.inf for value in losses]
    return candidates[ranked.index(min(ranked))], losses
