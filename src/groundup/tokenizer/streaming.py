"""Ids to text while they come, one by one."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from groundup.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """Decode ids as they are generated.

    A character's UTF-8 bytes can be spread over tokens; its text is held back until the character is whole.
    The deltas, joined, are `tokenizer.decode` of all ids; or what these add to the text before them.

    Args:
        continues: the text goes on from other text, so that a space at its beginning is part of it.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._drops_space = tokenizer.drops_space and not continues
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that these ids complete; empty while a character is unfinished."""
        new = b"".join(self._tokenizer.token_bytes(i) for i in ids if i not in self._skipped)
        if self._drops_space and new:
            self._drops_space, new = False, new.removeprefix(b" ")
        return self._utf8.decode(new)

    def flush(self) -> str:
        """What is left when no more ids come: U+FFFD for an unfinished character, else nothing."""
        return self._utf8.decode(b"", final=True)
