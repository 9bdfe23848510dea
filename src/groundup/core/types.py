"""Data types that the packages share. This module does not import torch."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field
from typing import Literal

IGNORE_INDEX = -100  # label without loss, as in PyTorch

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation"]
DeciderName = Literal["loss", "rouge", "chrf", "bleu", "exact", "f1"]  # metric that selects the best checkpoint
InferenceDtype = Literal["auto", "float32", "bfloat16", "int8", "int4"]  # of the weights, `groundup.inference.runner`
MetricName = Literal["rouge", "chrf", "bleu", "exact", "f1", "likelihood"]  # `groundup.evaluation.metrics`


def text_id(text: str) -> str:
    """Return the BLAKE2b-128 digest of a text in hex.

    Args:
        text: The text. Its UTF-8 bytes are hashed.
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_blank(text: str) -> bool:
    """Return whether a text has only white space, control and format characters.

    Args:
        text: The text.
    """
    return all(unicodedata.category(character)[0] in "ZC" for character in text)


def well_formed(text: str) -> str:
    """Replace lone surrogates by U+FFFD.

    Args:
        text: The text.
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
        text: Clean text in NFC, with LF line ends.
        source: Name of the source in the recipe.
        origin: File, archive member or row in the source.
        id: `text_id(text)`. Documents with the same ID are duplicates.
        url: URL, or "" if unknown.
        date: Date of the crawl or the text in ISO 8601, or "" if unknown.
        language: ISO 639 code, or "" if not detected.
        language_score: Confidence of the language, 0 to 1.
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
    """A message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation to train on or to complete."""

    messages: tuple[Message, ...]
