"""The vocabulary of a tokenizer in the form that llguidance needs."""

from __future__ import annotations

import threading
import weakref
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from groundup.core.errors import ConfigError
from groundup.inference.grammar.sources import GrammarSource
from groundup.inference.grammar.trial import TrialCompiler
from groundup.tokenizer import Tokenizer

_SHOWN_CHARACTERS = 200
# The default of 250,000 lexer states can use 500 MB for one grammar.
_LIMITS: dict[str, Any] = {"max_lexer_states": 30_000, "verbose_errors": False}


class GrammarVocabulary:
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
        adapter = _TokenizerAdapter(tokenizer)
        self._compiler = LLTokenizer(TokenizerWrapper(adapter))
        self._trial = TrialCompiler(
            {
                "tokens": [token.decode("latin-1") for token in adapter.tokens],
                "special": adapter.special_token_ids,
                "eos": adapter.eos_token_id,
                "limits": _LIMITS,
            }
        )
        weakref.finalize(self, self._trial.close)

    def matcher(self, source: GrammarSource, cancelled: threading.Event) -> LLMatcher:
        """Compile a grammar.

        Args:
            source: Grammar to compile.
            cancelled: Set when the grammar is not needed any more.

        Returns:
            A matcher before the first token.

        Raises:
            ConfigError: The grammar is invalid, too complex, or uses a feature that is not supported.
            ResourceError: Other grammars are compiled for too long.
            CancelledError: `cancelled` was set.
        """
        error = self._trial.compile(source.text, cancelled)
        if not error:
            matcher = LLMatcher(self._compiler, source.text, log_level=0, limits=LLParserLimits(**_LIMITS))
            error = matcher.get_error()
        if error:
            raise _refused(source, error)
        return matcher

    def check(self, matcher: LLMatcher, source: GrammarSource) -> None:
        """Raise an error if the first mask of a grammar is too complex for llguidance.

        Raises:
            ConfigError: The grammar is too complex.
        """
        matcher = matcher.deep_copy()
        matcher.compute_bitmask()
        if matcher.stop_reason() in ("ParserTooComplex", "LexerTooComplex"):
            raise _refused(source, matcher.get_error())

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


def _refused(source: GrammarSource, error: str) -> ConfigError:
    return ConfigError(f"{source.kind}: {' '.join(error.split())[:_SHOWN_CHARACTERS]}", fix=source.advice)


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


_vocabularies: weakref.WeakKeyDictionary[Tokenizer, GrammarVocabulary] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def vocabulary_of(tokenizer: Tokenizer) -> GrammarVocabulary:
    """Return the vocabulary of a tokenizer, which is built at the first call."""
    with _lock:
        found = _vocabularies.get(tokenizer)
        if found is None:
            found = _vocabularies[tokenizer] = GrammarVocabulary(tokenizer)
        return found
