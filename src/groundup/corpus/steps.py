"""The interface of the steps of the corpus pipeline. A step is a function that changes or drops a document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from groundup.core.types import Document


@dataclass(frozen=True, slots=True)
class Drop:
    """The reason why a document is dropped.

    Attributes:
        reason: A short phrase that does not contain measured values, so that drops can be counted by reason.
        detail: The measured value and the limit, e.g. "0.41 of the characters, at most 0.20".
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """The removal of a document that is a duplicate.

    Attributes:
        why: The reason for the removal.
        kept: ID of the document that is kept instead of the removed document.
    """

    why: Drop
    kept: str = ""


Step = Callable[[Document], Document | Drop]
NamedStep = tuple[str, Step]  # The name of a step is used in the recipe, the data card and the drop log.


def with_text(document: Document, text: str) -> Document:
    """Return the document with a new text. If the new text is different, the document gets a new ID."""
    return document if text == document.text else replace(document, text=text, id="")
