"""The types that flow along the road. No torch here: collecting text must not wait for it."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import Literal

IGNORE_INDEX = -100  # a label that is not trained; PyTorch's and the ecosystem's convention

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation"]
DeciderName = Literal["loss", "rouge", "chrf", "bleu", "exact", "f1"]  # by which states of a run are compared
MetricName = Literal["rouge", "chrf", "bleu", "exact", "f1", "likelihood"]  # `groundup.evaluation.metrics`


def text_id(text: str) -> str:
    """The identity of a text: 128 bits of BLAKE2b over its UTF-8 bytes, in hex."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_blank(text: str) -> bool:
    """Whether a text has no visible character: nothing, white space, control or format characters."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)


def well_formed(text: str) -> str:
    """The text with every lone surrogate replaced by U+FFFD; other text comes back as it is."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the corpus.

    Attributes:
        text: clean text, NFC, "\\n" line ends.
        source: the name of the source in the recipe.
        origin: where in that source it came from (file, archive member, row), for provenance.
        id: `text_id(text)`; two documents with one id are duplicates.
        url: the address that it was published under, where one is known.
        date: when it was crawled or written, in ISO 8601, where that is known.
        language: an ISO 639 code; "" where nobody asked.
        language_score: how sure that is, 0 to 1.
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
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation to train on or to answer."""

    messages: tuple[Message, ...]
