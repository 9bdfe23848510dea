"""Incremental decoding of generated tokens."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from groundup.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """A decoder of token ids that arrive one at a time.

    The bytes of a character may be in several tokens. Its text is returned when the character is complete. The returned
    texts join to `tokenizer.decode` of all ids.

    Args:
        tokenizer: The tokenizer.
        skip_special_tokens: Ignore special tokens.
        continues: The text continues other text, so a leading space is part of it.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._drops_space = tokenizer.strips_leading_space and not continues
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """Return the text that these ids complete, which is empty for part of a character.

        Args:
            ids: The next token ids.
        """
        new = b"".join(self._tokenizer.token_bytes(i) for i in ids if i not in self._skipped)
        if self._drops_space and new:
            self._drops_space, new = False, new.removeprefix(b" ")
        return self._utf8.decode(new)

    def flush(self) -> str:
        """Return U+FFFD if the last character is incomplete, otherwise an empty text."""
        return self._utf8.decode(b"", final=True)
