"""The interface of finders. A finder is a function from a `NormalizedText` to the `Span` objects found in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

# Each table maps all characters of a class, such as the digits, to the same byte, so that a long number can be found
# with `bytes.find`. For 3 kB of text, `bytes.find` takes about 5 µs, and a regular expression takes 50 µs.
_SHAPE = bytes(
    0x30 if 0x30 <= code <= 0x39 else 0x41 if 0x41 <= code <= 0x5A else 0x61 if 0x61 <= code <= 0x7A else code
    for code in range(256)
)
_HEX = bytes(0x68 if chr(code) in "0123456789abcdefABCDEF" else code for code in range(256))
_SEPARATORS = b" .-/()+"

_NON_ASCII_DIGIT = re.compile("[\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\uff10-\uff19]")
_DIGITS = {
    ord(character): str(value)
    for zero in "\u0660\u06f0\u0966\u09e6\uff10"
    for value, character in enumerate(map(chr, range(ord(zero), ord(zero) + 10)))
}
# Typographic spaces, hyphens and full-width characters that occur in phone numbers and addresses.
_LOOKALIKES = {
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "\u3000": " ",
    "\u2010": "-",
    "\u2011": "-",
    "\u2012": "-",
    "\u2013": "-",
    "\uff0b": "+",
    "\uff0d": "-",
    "\uff08": "(",
    "\uff09": ")",
    "\uff20": "@",
}


class Span(NamedTuple):
    """A span text[start:end] and the kind of value that it contains.

    If the kind is "", the span is not masked. The spans of later finders that overlap this span are not masked either.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class NormalizedText:
    """A text in which Unicode digits, spaces and hyphens are replaced by their ASCII equivalents.

    Each character of `text` has the same offset as the corresponding character of `original`.
    """

    original: str
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.original if self.original.isascii() else _plain(self.original))

    @cached_property
    def as_bytes(self) -> bytes:
        """The text with one byte per character. Non-ASCII characters are replaced by "?"."""
        return self.text.encode("ascii", "replace")

    @cached_property
    def shape(self) -> bytes:
        """The text with digits replaced by "0", uppercase letters by "A" and lowercase letters by "a"."""
        return self.as_bytes.translate(_SHAPE)

    @cached_property
    def hex_shape(self) -> bytes:
        """The text with hexadecimal digits replaced by "h"."""
        return self.as_bytes.translate(_HEX)

    @cached_property
    def has_number(self) -> bool:
        """Whether the text has at least 6 consecutive digits. Separators between the digits are ignored."""
        return b"000000" in self.shape.translate(None, _SEPARATORS)

    @cached_property
    def lowered(self) -> str:
        """The text in lower case, with the same character offsets."""
        lowered = self.text.lower()
        return (
            lowered if len(lowered) == len(self.text) else "".join(c.lower()[:1] for c in self.text)
        )  # Some characters, such as "İ", become two characters in lower case.


Finder = Callable[[NormalizedText], Iterable[Span]]


def _plain(text: str) -> str:
    for found, plain in _LOOKALIKES.items():
        if found in text:
            text = text.replace(found, plain)
    return text.translate(_DIGITS) if _NON_ASCII_DIGIT.search(text) else text
