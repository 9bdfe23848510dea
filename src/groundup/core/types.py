"""Data types that several packages share. This module does not import torch."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import Literal

IGNORE_INDEX = -100  # positions with this label do not contribute to the loss, as in PyTorch
SHARED_PREFIX = -1  # document id of a prefix that is shared by the documents after it, up to the next shared prefix

Role = Literal["system", "user", "assistant", "tool"]
Split = Literal["train", "validation"]
DeciderName = Literal["loss", "rouge", "chrf", "bleu", "exact", "f1"]  # metric that selects the best checkpoint
InferenceDtype = Literal["auto", "float32", "bfloat16", "int8", "int4"]  # data type of the weights during inference
MetricName = Literal[
    "rouge", "chrf", "bleu", "exact", "f1", "number", "likelihood"
]  # from `groundup.evaluation.metrics`


def text_id(text: str) -> str:
    """Return the hexadecimal BLAKE2b-128 digest of a text.

    Args:
        text: Text whose UTF-8 bytes are hashed.
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_blank(text: str) -> bool:
    """Return whether a text contains only whitespace, control and format characters.

    Args:
        text: Text to check.
    """
    return all(unicodedata.category(character)[0] in "ZC" for character in text)


def well_formed(text: str) -> str:
    """Replace lone surrogates in a text by U+FFFD.

    Args:
        text: Text that may contain lone surrogates.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the corpus.

    Attributes:
        text: Cleaned text in Unicode normalization form NFC, with LF line endings.
        source: Name of the source in the recipe.
        origin: File, archive member or table row that the document was read from.
        id: Digest of the text, from `text_id`. Documents with the same ID are duplicates.
        url: URL of the document, or "" if unknown.
        date: Date of the crawl or of the text in ISO 8601 format, or "" if unknown.
        language: ISO 639 language code, or "" if the language was not detected.
        language_score: Confidence of the language detection, from 0 to 1.
    """

    text: str
    source: str
    origin: str
    id: str = field(default="")
    url: str = ""
    date: str = ""
    language: str = ""
    language_score: float = 0.0

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", text_id(self.text))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function that a model requests.

    Attributes:
        id: ID of the call, which the message with the result refers to.
        name: Name of the function.
        arguments: Arguments of the function as a JSON object.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation.

    Attributes:
        role: Role of the author. Messages with the role "tool" contain the result of a tool call.
        content: Text of the message.
        tool_calls: Tool calls that a message of the assistant requests after its text.
        tool_call_id: ID of the tool call whose result the message contains.
        name: Name of the author or of the called function, or "" if it is not given.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation for training, or a conversation that a model completes."""

    messages: tuple[Message, ...]
