"""Incremental decoding of generated tokens."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable

from groundup.tokenizer.tokenizer import Tokenizer


class StreamDecoder:
    """An incremental decoder for token ids that are generated one after the other.

    The bytes of a character may be spread over several tokens. A character is returned when all of its bytes are known.
    The concatenation of all returned texts is the same as the result of `tokenizer.decode` for all ids.

    Args:
        tokenizer: The tokenizer.
        skip_special_tokens: Whether to omit special tokens from the text.
        continues: Whether the text continues other text, so that a leading space must be kept.
        shown_ids: Ids of special tokens whose names are part of the text even if special tokens are omitted.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special_tokens: bool = True,
        continues: bool = False,
        shown_ids: Collection[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._drops_space = tokenizer.strips_leading_space and not continues
        self._skipped = tokenizer.special_ids.difference(shown_ids) if skip_special_tokens else frozenset[int]()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """Decode the next token ids.

        Args:
            ids: The next token ids.

        Returns:
            The text of all characters that are now complete. The text is empty if the ids are only part of a character.
        """
        new = b"".join(self._tokenizer.token_bytes(i) for i in ids if i not in self._skipped)
        if self._drops_space and new:
            self._drops_space, new = False, new.removeprefix(b" ")
        return self._utf8.decode(new)

    def flush(self) -> str:
        """Return U+FFFD if the last character is incomplete, otherwise an empty string."""
        return self._utf8.decode(b"", final=True)
