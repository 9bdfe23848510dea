"""The vocabulary of a tokenizer in the form that llguidance needs."""

from __future__ import annotations

import threading
import weakref
from functools import cached_property

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from groundup.core.errors import ConfigError
from groundup.inference.grammar.sources import GrammarSource
from groundup.tokenizer import Tokenizer

_SHOWN_CHARACTERS = 200


class Vocabulary:
    """Vocabulary of a tokenizer.

    Attributes:
        size: Number of token IDs.
        tokens: Bytes of each token. Special tokens have no bytes.
        eos_id: ID of the end-of-sequence token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        text = tokenizer.text_tokens
        self.size = tokenizer.vocab_size
        self.tokens = [text.get(i, b"") for i in range(self.size)]
        self.eos_id = tokenizer.eos_id
        self._compiler = LLTokenizer(TokenizerWrapper(_TokenizerAdapter(tokenizer)))

    def matcher(self, source: GrammarSource) -> LLMatcher:
        """Compile a grammar.

        Args:
            source: Grammar to compile.

        Returns:
            A matcher before the first token.

        Raises:
            ConfigError: The grammar is invalid, too complex, or uses a feature that is not supported.
        """
        matcher = LLMatcher(self._compiler, source.text, log_level=0, limits=LLParserLimits(verbose_errors=False))
        if matcher.is_error():
            reason = " ".join(matcher.get_error().split())[:_SHOWN_CHARACTERS]
            raise ConfigError(f"{source.kind}: {reason}", fix=source.advice)
        return matcher

    def allowed(self, matcher: LLMatcher) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, as an array of shape (V,). EOS is always False."""
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = np.unpackbits(bits, bitorder="little")[: self.size].astype(bool)
        allowed_V[self.eos_id] = False
        return allowed_V

    def tokenize(self, text: bytes) -> list[int]:
        """Return few tokens for a text, or an empty list if the bytes end inside a character."""
        try:
            return self._compiler.greedy_tokenize(text.decode())
        except UnicodeDecodeError:
            return []

    @cached_property
    def byte_tokens(self) -> dict[int, int]:
        """Maps each byte that is a token by itself to the ID of this token, sorted by byte."""
        return dict(sorted((token[0], number) for number, token in enumerate(self.tokens) if len(token) == 1))

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of bytes of each token, shape (V,)."""
        return np.array([len(token) for token in self.tokens])


class _TokenizerAdapter:
    """Wraps a tokenizer in an object with the attributes that llguidance expects."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        text = tokenizer.text_tokens
        self.tokens = [text.get(i) or tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = [i for i in range(tokenizer.vocab_size) if i not in text]
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, tokenizer.bos_id
        self._tokenizer = weakref.ref(tokenizer)  # weak, because the tokenizer is a key of `_vocabularies`

    def __call__(self, text: str | bytes) -> list[int]:
        tokenizer = self._tokenizer()
        assert tokenizer is not None
        return tokenizer.encode(text.decode() if isinstance(text, bytes) else text, continues=True)


_vocabularies: weakref.WeakKeyDictionary[Tokenizer, Vocabulary] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """Return the vocabulary of a tokenizer, which is built at the first call."""
    with _lock:
        found = _vocabularies.get(tokenizer)
        if found is None:
            found = _vocabularies[tokenizer] = Vocabulary(tokenizer)
        return found
