"""The steps of the corpus pipeline: functions that change or drop a document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from groundup.core.types import Document


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a document is dropped.

    Attributes:
        reason: A short phrase without measured values, so that drops can be counted by reason.
        detail: The measured value and its limit: "0.41 of the characters, at most 0.20".
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """The removal of a duplicate.

    Attributes:
        why: The reason.
        kept: ID of the document that is kept instead.
    """

    why: Drop
    kept: str = ""


Step = Callable[[Document], Document | Drop]
NamedStep = tuple[str, Step]  # with its name in the recipe, the data card and the drop log


def with_text(document: Document, text: str) -> Document:
    """Return the document with a new text; its ID is recomputed if the text differs."""
    return document if text == document.text else replace(document, text=text, id="")
