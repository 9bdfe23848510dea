"""What a finder of personal data reads, and what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

# Letters and digits become one sign a class and the rest keeps its place, so that "is there a long number
# at all?" is one search for bytes: 3 kB of text are looked through in some 5 us, a regular expression takes 50.
_SHAPE = bytes(
    0x30 if 0x30 <= code <= 0x39 else 0x41 if 0x41 <= code <= 0x5A else 0x61 if 0x61 <= code <= 0x7A else code
    for code in range(256)
)
_WORD = bytes(0x77 if (chr(code).isalnum() and code < 128) or code in b"_-" else 0x20 for code in range(256))
_HEX = bytes(0x68 if chr(code) in "0123456789abcdefABCDEF" else code for code in range(256))
_SEPARATORS = b" .-/()+"

_NON_ASCII_DIGIT = re.compile("[\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\u09e6-\u09ef\uff10-\uff19]")
_DIGITS = {
    ord(character): str(value)
    for zero in "\u0660\u06f0\u0966\u09e6\uff10"
    for value, character in enumerate(map(chr, range(ord(zero), ord(zero) + 10)))
}
# Typographic blanks, hyphens and the full-width signs of phone numbers and addresses.
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
    """A part of a text: characters `start` to `end`, and what they are; "" for what must be let alone."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class NormalizedText:
    """A text as the finders see it: character for character as long as `original`, with plain digits and hyphens."""

    original: str
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.original if self.original.isascii() else _plain(self.original))

    @cached_property
    def as_bytes(self) -> bytes:
        """One byte a character: "?" for what is not ASCII."""
        return self.text.encode("ascii", "replace")

    @cached_property
    def shape(self) -> bytes:
        """One byte a character: "0" for a digit, "A" and "a" for letters, else itself."""
        return self.as_bytes.translate(_SHAPE)

    @cached_property
    def hex_shape(self) -> bytes:
        """One byte a character: "h" for a hexadecimal digit, else itself."""
        return self.as_bytes.translate(_HEX)

    @cached_property
    def has_number(self) -> bool:
        """Whether at least 6 digits stand together, or with nothing between them but what groups digits."""
        return b"000000" in self.shape.translate(None, _SEPARATORS)

    @cached_property
    def has_long_word(self) -> bool:
        """Whether at least 16 letters, digits, hyphens or underscores stand together."""
        return b"w" * 16 in self.as_bytes.translate(_WORD)

    @cached_property
    def lowered(self) -> str:
        """The text in lower case, character for character."""
        lowered = self.text.lower()
        return lowered if len(lowered) == len(self.text) else "".join(c.lower()[:1] for c in self.text)  # "İ" makes two


Finder = Callable[[NormalizedText], Iterable[Span]]


def _plain(text: str) -> str:
    for found, plain in _LOOKALIKES.items():
        if found in text:
            text = text.replace(found, plain)
    return text.translate(_DIGITS) if _NON_ASCII_DIGIT.search(text) else text
