"""Constrained decoding of one output."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from llguidance import LLMatcher
from torch import Tensor

from groundup.core.errors import ConfigError
from groundup.inference.grammar.search import CompletionSearch, CpuLimit, JsonState
from groundup.inference.grammar.vocabulary import GrammarVocabulary

MAX_COMPLETION = 4096  # maximum number of tokens of a stored completion
# Maximum number of digits per number. A small model may never stop, and Python refuses to parse 5,000 digits.
_MAX_DIGITS = 64
# CPU time of the engine's thread. A grammar may need much of it for one token, but not for every token.
_MAX_SECONDS = 0.5
_SECONDS_PER_STEP = 0.02


class Guide:
    """Grammar state while one output is generated.

    For each token, call `mask` on the logits, sample a token, and pass the sampled token to `accept`.

    Args:
        matcher: Matcher of llguidance for the grammar. The guide changes its state.
        vocabulary: GrammarVocabulary that the grammar is compiled for.
        search: Search for completions.
        completion: Tokens that form a complete valid output.
        remaining: Maximum number of tokens that may still be generated.
        stop_ids: IDs of stop tokens that may follow the complete output, in addition to EOS.
        is_json: Whether all of the output is one JSON value.
        ends_in_json: Whether the output is optional free text and then JSON.

    Attributes:
        stop_ids: IDs of the stop tokens, including EOS.
        truncated: Whether the output ended because of the token limit and not because the model ended it.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: GrammarVocabulary,
        search: CompletionSearch,
        completion: tuple[int, ...],
        *,
        remaining: int,
        stop_ids: Collection[int],
        is_json: bool,
        ends_in_json: bool,
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._search = search
        self._completion = completion
        self._remaining = remaining
        self._seconds = _MAX_SECONDS
        self._is_json = is_json
        self._max_digits = _MAX_DIGITS if is_json or ends_in_json else math.inf
        self._state = JsonState()
        self.stop_ids = frozenset(stop_ids) | {vocabulary.eos_id}
        self.truncated = False

    @property
    def finished(self) -> bool:
        """Whether the output is complete and no further token is allowed."""
        return not self._completion and self._matcher.is_stopped()

    def mask(self, logits_V: Tensor) -> Tensor:
        """Return a copy of the logits, of shape (V,), in which tokens that the grammar does not allow next are -inf.

        Raises:
            ConfigError: The grammar is too complex.
        """
        allowed_V = np.zeros(self._vocabulary.size, dtype=bool)
        if not self._matcher.is_stopped():
            with self._limited():
                allowed_V = self._vocabulary.allowed(self._matcher)
        if self._matcher.is_error():
            raise ConfigError(
                f"grammar: {' '.join(self._matcher.get_error().split())[:200]}",
                rule="the next token takes too long to compute",
                fix="Simplify the grammar: fewer alternatives, smaller repeat counts, no ambiguous repetition.",
            )
        if not self._completion:
            allowed_V[list(self.stop_ids)] = True
        return logits_V.masked_fill(~torch.from_numpy(allowed_V[: len(logits_V)]), -math.inf)

    def accept(self, token: int) -> int:
        """Accept a sampled token if the output can then still be completed within the token limit.

        Args:
            token: ID of a token that was sampled from the masked logits.

        Returns:
            The sampled token if it is accepted, otherwise the next token of the stored completion.

        Raises:
            ConfigError: The grammar is too complex.
        """
        self._remaining -= 1
        if token in self.stop_ids and not self._completion:
            return token
        matcher = self._matcher.deep_copy()
        if matcher.validate_tokens([token]) == 1 and matcher.consume_token(token):
            state = self._state.after(self._vocabulary.tokens[token])
            known = self._completion[1:] if self._completion[:1] == (token,) else self._completion
            most = min(self._remaining, MAX_COMPLETION)
            with self._limited() as limit:
                completion = self._search.find(matcher, state, known, most, limit, thorough=False)
            if completion is not None and state.digits <= self._max_digits:
                in_text = not completion and not self._is_json  # quotes in free text are not quotes of JSON
                self._state = JsonState() if in_text else state
                self._matcher, self._completion = matcher, completion
                return token
        self.truncated = True
        if not self._completion:  # the output is complete
            return self._vocabulary.eos_id
        token, *rest = self._completion
        self._matcher.consume_token(token)
        self._state, self._completion = self._state.after(self._vocabulary.tokens[token]), tuple(rest)
        return token

    @contextmanager
    def _limited(self) -> Iterator[CpuLimit]:
        limit = CpuLimit(self._seconds)
        yield limit
        limit.check()
        self._seconds = min(_MAX_SECONDS, limit.remaining + _SECONDS_PER_STEP)
