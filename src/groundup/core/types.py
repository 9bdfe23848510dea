"""Data types that several packages share. This module does not import torch."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import Literal

IGNORE_INDEX = -100  # positions with this label do not contribute to the loss, as in PyTorch

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation"]
DeciderName = Literal["loss", "rouge", "chrf", "bleu", "exact", "f1"]  # metric that selects the best checkpoint
InferenceDtype = Literal["auto", "float32", "bfloat16", "int8", "int4"]  # data type of the weights during inference
MetricName = Literal["rouge", "chrf", "bleu", "exact", "f1", "likelihood"]  # from `groundup.evaluation.metrics`


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
class Message:
    """A message of a conversation, with the role of its author."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation for training, or a conversation that a model completes."""

    messages: tuple[Message, ...]
