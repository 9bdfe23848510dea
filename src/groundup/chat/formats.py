"""How a conversation becomes a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from groundup.core.types import Message
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.chat import ChatTemplate


class PromptFormat(Protocol):
    """Messages to the ids that the model goes on from.

    Attributes:
        stop_ids: the tokens that end an answer.
        takes_system: whether a system message can be part of it.
        answers: whether what comes next is a text of its own, and not the last message's continuation.
    """

    stop_ids: tuple[int, ...]
    takes_system: bool
    answers: bool

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The ids of the conversation, BOS included, so that the model's answer comes next."""
        ...


class ChatFormat:
    """The chat template that the model was tuned with."""

    answers = True

    def __init__(self, template: ChatTemplate) -> None:
        self.takes_system = template.takes_system
        self.stop_ids = template.stop_ids
        self._template = template

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """See `PromptFormat`."""
        return self._template.encode(messages, add_generation_prompt=True)


class TextFormat:
    """For a base model, which has never seen a conversation: one text that person and model write in turn.

    The model goes on right after what was typed; what is typed next begins a new line.
    """

    takes_system = False
    answers = False

    def __init__(self, tokenizer: Tokenizer, stop_ids: tuple[int, ...]) -> None:
        self.stop_ids = stop_ids
        self._tokenizer = tokenizer

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """See `PromptFormat`."""
        text = "".join(m.content + ("\n" if m.role == "assistant" else "") for m in messages)
        return self._tokenizer.encode_prompt(text)
