"""Search for short outputs that a grammar accepts.

llguidance does not report how an output can be completed. The search therefore tries continuations: the bytes that the
grammar forces, tokens that close JSON, single bytes and the texts that occur in the grammar.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from groundup.core.errors import ConfigError
from groundup.inference.grammar.sources import GrammarSource
from groundup.inference.grammar.trial import CancelledError
from groundup.inference.grammar.vocabulary import GrammarVocabulary

_CLOSING = b"}],:"  # bytes that end JSON soonest, best first
_TOKEN = b"\xff["  # llguidance writes a token of the grammar, such as <[42]>, as b"\xff[42]"
_QUOTE, _BACKSLASH = b'"'[0], b"\\"[0]
_MAX_SKIPPED = 32  # tokens that are skipped at the start of a known completion
_MAX_PROBED_LITERALS = 32
_MAX_STATES = 24  # states per level
_FIRST_NON_ASCII = 0x80


@dataclass(frozen=True, slots=True)
class _Effort:
    """Limits of a breadth-first search.

    Attributes:
        max_moves: Maximum number of continuations that are tried.
        max_similar: Maximum number of states of a level that allow the same probes. They probably continue equally.
        ascii_only: Whether to skip other bytes where ASCII is allowed.
    """

    max_moves: int
    max_similar: int
    ascii_only: bool


_QUICK = _Effort(max_moves=1000, max_similar=1, ascii_only=True)  # 30 ms
_THOROUGH = _Effort(max_moves=20_000, max_similar=3, ascii_only=False)


@dataclass(frozen=True, slots=True)
class JsonState:
    """State of the lexer at the end of partial JSON.

    The state records whether the lexer is inside a string or after a backslash, and the digits of the last number.
    """

    quoted: bool = False
    escaped: bool = False
    digits: int = 0

    def after(self, written: bytes) -> JsonState:
        """Return the state after more bytes."""
        quoted, escaped, digits = self.quoted, self.escaped, self.digits
        for byte in written:
            digits = digits + 1 if byte in b"0123456789" and not quoted else 0
            if escaped:
                escaped = False
            elif byte == _QUOTE:
                quoted = not quoted
            elif byte == _BACKSLASH:
                escaped = quoted
        return JsonState(quoted, escaped, digits)


class CpuLimit:
    """Limit of the CPU time of this thread for a grammar. It does not depend on the load from other requests.

    Args:
        seconds: Maximum CPU time.
        cancelled: Set when the result is not needed any more.
    """

    def __init__(self, seconds: float, cancelled: threading.Event | None = None) -> None:
        self._end = time.thread_time() + seconds
        self._cancelled = cancelled

    @property
    def remaining(self) -> float:
        """Seconds that are left. Negative after the limit."""
        return self._end - time.thread_time()

    def check(self) -> None:
        """Raise an error if the time is over or the result is not needed.

        Raises:
            ConfigError: The time is over.
            CancelledError: The result is not needed.
        """
        if self._cancelled is not None and self._cancelled.is_set():
            raise CancelledError
        if self.remaining < 0:
            raise ConfigError(
                "the grammar is too complex",
                rule="no valid output was found in time",
                fix="Use simpler patterns, smaller repeat counts and minimum lengths, and fewer alternatives.",
            )


class CompletionSearch:
    """Search for completions of outputs of one grammar.

    Args:
        vocabulary: GrammarVocabulary that the grammar is compiled for.
        source: The grammar.
    """

    def __init__(self, vocabulary: GrammarVocabulary, source: GrammarSource) -> None:
        self._vocabulary = vocabulary
        self._closes_json = source.is_json or source.ends_in_json
        literals = [vocabulary.tokenize(literal.encode()) for literal in source.literals]
        self._literals = [each for each in literals if each]
        self._ascii = [[token] for byte, token in vocabulary.byte_tokens.items() if byte < _FIRST_NON_ASCII]
        self._others = [[token] for byte, token in vocabulary.byte_tokens.items() if byte >= _FIRST_NON_ASCII]
        # The mask of all tokens would separate states better, but takes 250 us in some grammars.
        self._probes = self._ascii + self._literals[:_MAX_PROBED_LITERALS]

    def find(
        self,
        matcher: LLMatcher,
        state: JsonState,
        known: tuple[int, ...],
        max_tokens: int,
        limit: CpuLimit,
        *,
        thorough: bool,
    ) -> tuple[int, ...] | None:
        """Return a short sequence of tokens that completes the output.

        Args:
            matcher: The grammar after the output so far. It is not changed.
            state: State of the lexer after the output so far, for JSON.
            known: A completion of an earlier output. Its end is often a completion of the current output.
            max_tokens: Maximum length of the completion.
            limit: Limit of the time.
            thorough: Whether to search for up to a second instead of a few milliseconds.

        Returns:
            The tokens, empty if the output is complete, or None if the search does not find a completion.

        Raises:
            ConfigError: The search takes too long.
            CancelledError: The result is not needed.
        """
        found = self._end_of(matcher, known)
        if found is None and not self._closes_json:
            found = self._nearest(matcher, known, _QUICK, limit)
        if found is None:
            found = self._closed(matcher, state, known, max_tokens, limit)
        if found is None and thorough:
            found = self._nearest(matcher, known, _THOROUGH, limit)
        if found is None:
            return None
        found = self._merged(matcher, found)
        return found if len(found) <= max_tokens else None

    def _completes(self, matcher: LLMatcher, tokens: list[int] | tuple[int, ...]) -> bool:
        return matcher.validate_tokens([*tokens, self._vocabulary.eos_id]) == len(tokens) + 1

    def _end_of(self, matcher: LLMatcher, known: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return the known completion, without tokens at its start, if it completes the output."""
        if matcher.is_accepting():
            return ()
        for skipped in range(min(len(known), _MAX_SKIPPED)):
            if self._completes(matcher, known[skipped:]):
                return known[skipped:]
        return None

    def _nearest(
        self, matcher: LLMatcher, known: tuple[int, ...], effort: _Effort, limit: CpuLimit
    ) -> tuple[int, ...] | None:
        """Search breadth-first for a completion."""
        level: list[tuple[LLMatcher, tuple[int, ...]]] = [(matcher, ())]
        tried = 0
        while level:
            following: list[tuple[LLMatcher, tuple[int, ...]]] = []
            similar: Counter[tuple[int, ...]] = Counter()
            for before, path in level:
                for after, step in self._continuations(before, ascii_only=effort.ascii_only):
                    limit.check()
                    end = self._end_of(after, known)
                    if end is not None:
                        return (*path, *step, *end)
                    tried += 1
                    if tried >= effort.max_moves:
                        return None
                    kind = (*(after.validate_tokens(probe) for probe in self._probes), *self._literal(step))
                    similar[kind] += 1
                    if similar[kind] <= effort.max_similar and len(following) < _MAX_STATES:
                        following.append((after, (*path, *step)))
            level = following
        return None

    def _literal(self, step: list[int]) -> list[int]:
        """Return a step that is a text of the grammar, after which the probes may not show a difference."""
        return step if len(step) > 1 or len(self._vocabulary.tokens[step[0]]) > 1 else []

    def _continuations(self, matcher: LLMatcher, *, ascii_only: bool) -> Iterator[tuple[LLMatcher, list[int]]]:
        forced = self._forced(matcher)
        found = False
        for moves in [[forced]] if forced else [self._ascii, self._literals, self._others]:
            if moves is self._others and found and ascii_only:
                return
            for step in moves:
                if matcher.validate_tokens(step) == len(step):
                    after = matcher.deep_copy()
                    if after.consume_tokens(step):
                        found = True
                        yield after, step

    def _closed(
        self, matcher: LLMatcher, state: JsonState, known: tuple[int, ...], max_tokens: int, limit: CpuLimit
    ) -> tuple[int, ...] | None:
        """Write tokens that probably close the output until it is complete."""
        matcher = matcher.deep_copy()
        found: list[int] = []
        turn = 0
        while (end := self._end_of(matcher, known)) is None:
            limit.check()
            step = self._forced(matcher)
            if not step:
                allowed_V = self._vocabulary.allowed(matcher)
                if matcher.is_error() or not allowed_V.any():
                    return None
                step = [self._closing_token(allowed_V, state, turn)]
                turn += 1
            found += step
            if len(found) > max_tokens or not matcher.consume_tokens(step):
                return None
            state = state.after(b"".join(self._vocabulary.tokens[token] for token in step))
        return (*found, *end)

    def _forced(self, matcher: LLMatcher) -> list[int]:
        """Return the tokens of the only text that the grammar allows next, or an empty list if several are possible."""
        text, special, rest = matcher.compute_ff_bytes().partition(_TOKEN)
        step = [int(rest.partition(b"]")[0])] if special and not text else self._vocabulary.tokenize(text)
        return step if matcher.validate_tokens(step) == len(step) else []

    def _closing_token(self, allowed_V: npt.NDArray[np.bool_], state: JsonState, turn: int) -> int:
        """Return an allowed token that probably brings the output closer to its end."""
        byte_tokens = self._vocabulary.byte_tokens
        preferred = b'"' if state.quoted else _CLOSING + b'"'
        for byte in preferred:
            token = byte_tokens.get(byte)
            if token is not None and allowed_V[token] and not state.escaped:
                return token
        # The other bytes are tried in rotation, because a pattern may require a particular byte.
        others = [token for byte, token in byte_tokens.items() if byte not in preferred and allowed_V[token]]
        if others:
            return others[turn % len(others)]
        ids = np.flatnonzero(allowed_V)
        return int(ids[np.argmin(self._vocabulary.lengths[ids])])

    def _merged(self, matcher: LLMatcher, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return fewer tokens with the same text, if the grammar allows them."""
        fewer = self._vocabulary.tokenize(b"".join(self._vocabulary.tokens[token] for token in tokens))
        return tuple(fewer) if fewer and len(fewer) < len(tokens) and self._completes(matcher, fewer) else tokens
