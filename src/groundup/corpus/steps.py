"""What happens to one document on its way into the corpus: a list of steps, each of which changes or drops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from groundup.core.types import Document


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a document is dropped.

    Attributes:
        reason: a short phrase that is the same for every document with that fate: it is what is counted.
        detail: what was measured in this one, and the bound: "0.41 of the characters, at most 0.20".
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """Why a document is not to be written, although nothing is wrong with it.

    Attributes:
        kept: the id of the document that stays in its place.
    """

    why: Drop
    kept: str = ""


Step = Callable[[Document], Document | Drop]
NamedStep = tuple[str, Step]  # with the name that the recipe, the data card and the ledger know it by


def with_text(document: Document, text: str) -> Document:
    """The document with another text, and so with another id."""
    return document if text == document.text else replace(document, text=text, id="")
