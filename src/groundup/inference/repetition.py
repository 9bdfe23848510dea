"""Exclusion of tokens that would repeat an n-gram of the output (Paulus et al. 2018, arXiv 1705.04304).

Shape letters: V vocab.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from groundup.tokenizer import Tokenizer

# If fewer tokens are possible, the grammar determines the token. The names of JSON properties must be able to repeat.
_MIN_CHOICES = 100


class RepeatedNgrams:
    """The n-grams of an output, which must not occur again.

    It differs from `no_repeat_ngram_size` of Hugging Face transformers: n-grams of the prompt may occur, n-grams do not
    contain tokens that a grammar determines, and punctuation is skipped, because a model would separate repeated words
    with commas.

    Args:
        size: Number of tokens of an n-gram, at least 2.
        tokenizer: Tokenizer of the output.
        texts: Token ids of texts whose n-grams must not occur in the output either.
    """

    def __init__(self, size: int, tokenizer: Tokenizer, texts: Sequence[Sequence[int]] = ()) -> None:
        self._size = size
        self._tokenizer = tokenizer
        self._following: dict[tuple[int, ...], set[int]] = {}
        self._last: tuple[int, ...] = ()
        self._is_choice = True
        for text in texts:
            for token in text:
                self.add(token)
            self._last = ()

    def exclude(self, logits_V: Tensor) -> Tensor:
        """Return the logits, in which the tokens that would repeat an n-gram are -inf unless no other is possible.

        Args:
            logits_V: Logits (V,), not changed. Tokens that a grammar does not allow are -inf.
        """
        self._is_choice = int(logits_V.isfinite().sum()) >= _MIN_CHOICES
        repeated = self._following.get(self._last)
        if not self._is_choice or not repeated:
            return logits_V
        excluded_V = logits_V.clone()
        excluded_V[sorted(repeated)] = -math.inf
        return excluded_V if bool(excluded_V.isfinite().any()) else logits_V

    def add(self, token: int) -> None:
        """Add the token that follows, after `exclude` was called for it."""
        if not self._is_choice:
            self._last = ()
            return
        if not any(character.isalnum() or character == "\ufffd" for character in self._tokenizer.decode([token])):
            return  # the replacement character is a part of a letter
        if len(self._last) == self._size - 1:
            self._following.setdefault(self._last, set()).add(token)
        self._last = (*self._last, token)[1 - self._size :]
