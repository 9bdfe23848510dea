"""A conversation as a model reads it: by its chat template, or laid out as plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from groundup.core.types import Example, Message, Role
from groundup.tokenizer import ChatTemplate, Tokenizer


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """A way to lay a conversation out as plain text.

    Attributes:
        name: in words.
        before: what stands before the words of each role.
        after: what stands after each turn; where it appears in what a model writes, its turn is over.
    """

    name: str
    before: dict[Role, str]
    after: str


def _format(name: str, user: str, assistant: str, after: str, system: str = "") -> PromptFormat:
    return PromptFormat(name, {"user": user, "assistant": assistant, "system": system}, after)


PLAIN_FORMATS = (
    _format('lines "Q: ..." and "A: ..."', "Q: ", "A: ", "\n"),
    _format('paragraphs "Question: ..." and "Answer: ..."', "Question: ", "Answer: ", "\n\n"),
    _format('lines "User: ..." and "Assistant: ..."', "User: ", "Assistant: ", "\n", "System: "),
    _format("a line each", "", "", "\n"),
    _format("a paragraph each", "", "", "\n\n"),
    _format("a line with a dash each", "- ", "- ", "\n"),
    _format("all in one line", "", "", " "),
)
CHAT_TEMPLATE = "the chat template"
_ROOM = 8  # tokens


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as a model reads it.

    Attributes:
        ids: with BOS.
        scored: which of them are words of an answer.
        last: which of them are the last token of an answer's words.
        ends: which of them end an answer's turn; none in plain text.
    """

    ids: list[int]
    scored: list[bool]
    last: list[bool]
    ends: list[bool]


Renderer = Callable[[Example], Rendered]


def chat_renderer(template: ChatTemplate) -> Renderer:
    """Conversations by the chat template."""

    def render(example: Example) -> Rendered:
        ids, trained = template.encode_labelled(example.messages)
        ends = [is_trained and token in template.stop_ids for token, is_trained in zip(ids, trained, strict=True)]
        scored = [is_trained and not end for is_trained, end in zip(trained, ends, strict=True)]
        last = [is_scored and end for is_scored, end in zip(scored, [*ends[1:], False], strict=True)]
        return Rendered(ids, scored, last, ends)

    return render


def plain_renderer(tokenizer: Tokenizer, format: PromptFormat) -> Renderer:
    """Conversations as plain text. Words, with a space before them, are encoded apart from what stands around them."""

    def render(example: Example) -> Rendered:
        ids, scored, last = [tokenizer.bos_id], [False], [False]
        for number, message in enumerate(example.messages):
            before = ("" if number == 0 else format.after) + format.before[message.role]
            space = before[len(before.rstrip(" ")) :]
            around = tokenizer.encode(before.rstrip(" "), continues=len(ids) > 1)
            words = tokenizer.encode(space + message.content, continues=len(ids) + len(around) > 1)
            answers = message.role == "assistant"
            ids += around + words
            scored += [False] * len(around) + [answers] * len(words)
            last += [False] * (len(around) + len(words) - 1) + [answers]
        return Rendered(ids, scored, last, [False] * len(ids))

    return render


def plain_prompt(format: PromptFormat, messages: Sequence[Message]) -> str:
    """Messages as plain text, up to where the assistant's words would come."""
    turns = "".join(f"{format.before[message.role]}{message.content}{format.after}" for message in messages)
    return (turns + format.before["assistant"]).rstrip(" ")


def fits(render: Renderer, example: Example, context_length: int) -> bool:
    """Whether a conversation can be scored at once, and its question asked with room for an answer."""
    return len(render(example).ids) <= context_length - _ROOM
