"""Constrained decoding: the output is JSON that matches a JSON schema, even if max_tokens ends the generation.

The library llguidance computes the mask of allowed tokens from the schema and the vocabulary. In addition, a `Guide`
stores a completion: a sequence of tokens that would end the current output validly. A sampled token is accepted only if
the output can be completed after it within the remaining tokens. Otherwise the guide emits the next token of the stored
completion. The output is therefore valid JSON for any sampled tokens and any token limit.

Shape suffix in variable names: V is the vocabulary size.
"""

from __future__ import annotations

import json
import math
import threading
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from torch import Tensor

from groundup.core.errors import ConfigError
from groundup.tokenizer import Tokenizer

_MAX_SCHEMA_BYTES = 64 * 2**10  # a schema of this size compiles in less than a second
_MAX_DEPTH = 64  # maximum nesting depth of a schema, because the compiler is recursive
_MAX_COMPLETION = 4096  # maximum number of tokens of a stored completion
# Maximum number of digits per number. A small model may never stop, and Python refuses to parse 5,000 digits.
_MAX_DIGITS = 64
_MAX_CACHED = 64  # maximum number of compiled schemas that are cached per vocabulary

# The output has the format of json.dumps, which is the most common format in training data. Other whitespace is not
# allowed, because some models would generate it forever. \u escapes are not allowed, because half of a surrogate pair
# is valid JSON but not valid text.
_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
_OPTIONS_KEY = "x-guidance"  # a schema could use this key to change the options above
_CLOSING = b"}],:"  # bytes that end the JSON soonest, best first
_QUOTE, _BACKSLASH = b'"'[0], b"\\"[0]

Json = dict[str, Any]


class Grammar:
    """A JSON schema that is compiled for the vocabulary of a tokenizer.

    Attributes:
        schema: The compiled JSON schema.
        min_tokens: Number of tokens of a short valid output. `max_tokens` of a request must be at least this number.
    """

    def __init__(self, schema: Json, vocabulary: _Vocabulary) -> None:
        self.schema = schema
        self._vocabulary = vocabulary
        self._matcher = vocabulary.matcher(schema)
        completion = vocabulary.completion(self._matcher, _JsonState(), _MAX_COMPLETION)
        if completion is None:
            raise _schema_error(
                "JSON schema",
                f"no valid output of at most {_MAX_COMPLETION:,} tokens was found",
                "Decrease minItems and minLength, simplify patterns, and make recursion optional.",
            )
        self.min_tokens = len(completion)
        self._completion = completion

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any], tokenizer: Tokenizer) -> Grammar:
        """Return the compiled grammar of a JSON schema. Compiled grammars are cached.

        Args:
            schema: JSON schema to compile.
            tokenizer: Tokenizer whose vocabulary the grammar is compiled for.

        Returns:
            The compiled grammar.

        Raises:
            ConfigError: The schema is invalid or too large, refers to other documents, or uses unsupported keywords.
        """
        vocabulary = _vocabulary_of(tokenizer)
        return vocabulary.grammar(_validated(schema))

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raise an error if `max_tokens` is too small for a valid output.

        Args:
            max_tokens: Maximum number of output tokens.

        Raises:
            ConfigError: `max_tokens` is less than `min_tokens`.
        """
        if max_tokens < self.min_tokens:
            raise _schema_error(
                f"max_tokens = {max_tokens}",
                f"output for this schema may need {self.min_tokens} tokens",
                f"Set max_tokens >= {self.min_tokens}, shorten the prompt, or use a smaller schema.",
            )

    def start(self, max_tokens: int, stop_ids: Collection[int]) -> Guide:
        """Return a guide for the generation of one output.

        Args:
            max_tokens: Maximum number of output tokens, including the stop token.
            stop_ids: IDs of stop tokens that may follow the complete output, in addition to EOS.

        Returns:
            A guide in its initial state, before the first token.

        Raises:
            ConfigError: `max_tokens` is less than `min_tokens`.
        """
        self.check_max_tokens(max_tokens)
        return Guide(self._matcher.deep_copy(), self._vocabulary, self._completion, max_tokens, stop_ids)


class Guide:
    """Grammar state while one output is generated.

    For each token, call `mask` on the logits, sample a token, and pass the sampled token to `accept`.

    Args:
        matcher: Matcher of llguidance for the grammar. The guide changes its state.
        vocabulary: Vocabulary that the grammar is compiled for.
        completion: Tokens that form a complete valid output.
        remaining: Maximum number of tokens that may still be generated.
        stop_ids: IDs of stop tokens that may follow the complete output, in addition to EOS.

    Attributes:
        stop_ids: IDs of the stop tokens, including EOS.
        truncated: Whether the output ended because of the token limit and not because the model ended it.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: _Vocabulary,
        completion: tuple[int, ...],
        remaining: int,
        stop_ids: Collection[int],
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._completion = completion
        self._remaining = remaining
        self._state = _JsonState()
        self.stop_ids = frozenset(stop_ids) | {vocabulary.eos_id}
        self.truncated = False

    @property
    def finished(self) -> bool:
        """Whether the output is complete and no further token is allowed."""
        return not self._completion and self._matcher.is_stopped()

    def mask(self, logits_V: Tensor) -> Tensor:
        """Return a copy of the logits, of shape (V,), in which tokens that the grammar does not allow next are -inf."""
        allowed_V = np.zeros(self._vocabulary.size, dtype=bool)
        if not self._matcher.is_stopped():
            allowed_V = self._vocabulary.allowed(self._matcher)
        if self._matcher.is_error():  # llguidance failed, so allow only the stored completion
            allowed_V = np.zeros(self._vocabulary.size, dtype=bool)
            allowed_V[list(self._completion[:1])] = True
        if not self._completion:
            allowed_V[list(self.stop_ids)] = True
        return logits_V.masked_fill(~torch.from_numpy(allowed_V[: len(logits_V)]), -math.inf)

    def accept(self, token: int) -> int:
        """Accept a sampled token if the output can then still be completed within the token limit.

        Args:
            token: ID of a token that was sampled from the masked logits.

        Returns:
            The sampled token if it is accepted, otherwise the next token of the stored completion.
        """
        self._remaining -= 1
        if token in self.stop_ids and not self._completion:
            return token
        matcher = self._matcher.deep_copy()
        if not matcher.is_error() and matcher.validate_tokens([token]) == 1 and matcher.consume_token(token):
            state = self._state.after(self._vocabulary.tokens[token])
            completion = self._completion_after(matcher, token, state)
            if completion is not None and len(completion) <= self._remaining and state.digits <= _MAX_DIGITS:
                self._matcher, self._state, self._completion = matcher, state, completion
                return token
        self.truncated = True
        if not self._completion:  # the output is complete
            return self._vocabulary.eos_id
        token, *rest = self._completion
        self._matcher.consume_token(token)
        self._state, self._completion = self._state.after(self._vocabulary.tokens[token]), tuple(rest)
        return token

    def _completion_after(self, matcher: LLMatcher, token: int, state: _JsonState) -> tuple[int, ...] | None:
        if self._completion[:1] == (token,):
            return self._completion[1:]
        # Inside a string, the previous completion usually remains valid. Checking this is faster than a new search.
        if matcher.validate_tokens([*self._completion, self._vocabulary.eos_id]) == len(self._completion) + 1:
            return self._completion
        return self._vocabulary.completion(matcher.deep_copy(), state, min(self._remaining, _MAX_COMPLETION))


@dataclass(frozen=True, slots=True)
class _JsonState:
    """State of the lexer at the end of partial JSON.

    The state records whether the lexer is inside a string or after a backslash, and the digits of the last number.
    """

    quoted: bool = False
    escaped: bool = False
    digits: int = 0

    def after(self, written: bytes) -> _JsonState:
        quoted, escaped, digits = self.quoted, self.escaped, self.digits
        for byte in written:
            digits = digits + 1 if byte in b"0123456789" and not quoted else 0
            if escaped:
                escaped = False
            elif byte == _QUOTE:
                quoted = not quoted
            elif byte == _BACKSLASH:
                escaped = quoted
        return _JsonState(quoted, escaped, digits)


class _Vocabulary:
    """Vocabulary of a tokenizer in the form that llguidance needs, and a cache of the schemas compiled for it.

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
        self._grammars: dict[str, Grammar] = {}
        self._lock = threading.Lock()

    def grammar(self, schema: Json) -> Grammar:
        key = json.dumps(schema)  # not sorted, because the order of keys matters for the output
        with self._lock:
            found = self._grammars.pop(key, None) or Grammar(schema, self)
            self._grammars[key] = found
            while len(self._grammars) > _MAX_CACHED:
                del self._grammars[next(iter(self._grammars))]
        return found

    def matcher(self, schema: Json) -> LLMatcher:
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_JSON_STYLE)  # type: ignore[arg-type]
        matcher = LLMatcher(self._compiler, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))
        if matcher.is_error():
            reason = " ".join(matcher.get_error().split())[:200]
            raise _schema_error(
                f"JSON schema: {reason}",
                "a keyword is not supported or not valid",
                "Remove it, or use type, properties, required, items, enum, anyOf (not oneOf), minimum, maxLength or a "
                "simpler pattern.",
            )
        return matcher

    def allowed(self, matcher: LLMatcher) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, as an array of shape (V,). EOS is always False."""
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = np.unpackbits(bits, bitorder="little")[: self.size].astype(bool)
        allowed_V[self.eos_id] = False
        return allowed_V

    def completion(self, matcher: LLMatcher, state: _JsonState, max_tokens: int) -> tuple[int, ...] | None:
        """Return a short sequence of tokens that completes the output, or None if a greedy search does not find one."""
        matcher = matcher.deep_copy()
        found: list[int] = []
        turn = 0
        while not matcher.is_accepting():
            step = self._forced(matcher)
            if not step:
                allowed_V = self.allowed(matcher)
                if matcher.is_error() or not allowed_V.any():
                    return None
                step = [self._closing_token(allowed_V, state, turn)]
                turn += 1
            found += step
            if len(found) > max_tokens or not matcher.consume_tokens(step):
                return None
            state = state.after(b"".join(self.tokens[token] for token in step))
        return tuple(found)

    def _forced(self, matcher: LLMatcher) -> list[int]:
        """Return the tokens of the only text that the grammar allows next, or an empty list if several are possible."""
        written = matcher.compute_ff_bytes()
        try:
            step = self._compiler.greedy_tokenize(written.decode()) if written else []
        except UnicodeDecodeError:  # the bytes end inside a character
            return []
        return step if matcher.validate_tokens(step) == len(step) else []

    def _closing_token(self, allowed_V: npt.NDArray[np.bool_], state: _JsonState, turn: int) -> int:
        """Return an allowed token that probably brings the output closer to its end."""
        preferred = b'"' if state.quoted else _CLOSING + b'"'
        for byte in preferred:
            token = self._byte_tokens.get(byte)
            if token is not None and allowed_V[token] and not state.escaped:
                return token
        # The other bytes are tried in rotation, because a pattern may require a particular byte.
        others = [token for byte, token in self._byte_tokens.items() if byte not in preferred and allowed_V[token]]
        if others:
            return others[turn % len(others)]
        ids = np.flatnonzero(allowed_V)
        return int(ids[np.argmin(self._lengths[ids])])

    @cached_property
    def _byte_tokens(self) -> dict[int, int]:
        """Maps each byte that is a token by itself to the ID of this token, sorted by byte."""
        return dict(sorted((token[0], number) for number, token in enumerate(self.tokens) if len(token) == 1))

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
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


_vocabularies: weakref.WeakKeyDictionary[Tokenizer, _Vocabulary] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _vocabulary_of(tokenizer: Tokenizer) -> _Vocabulary:
    with _lock:
        found = _vocabularies.get(tokenizer)
        if found is None:
            found = _vocabularies[tokenizer] = _Vocabulary(tokenizer)
        return found


def _validated(schema: Mapping[str, Any]) -> Json:
    """Return the schema as JSON values without options of llguidance. Raise ConfigError if the schema is invalid."""
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise _schema_error(
                f"JSON schema with {depth} levels",
                f"the maximum nesting is {_MAX_DEPTH}",
                "Move nested parts to $defs.",
            )
        if isinstance(value, Mapping):
            target = value.get("$ref")
            if isinstance(target, str) and not target.startswith("#"):
                raise _schema_error(
                    f'"$ref": {json.dumps(target[:80])}',
                    "only references within the schema are supported",
                    'Move the target to "$defs" and refer to it as "#/$defs/NAME".',
                )
            minimum = value.get("minProperties")
            if isinstance(minimum, int) and minimum > 1:  # llguidance would count a repeated property name twice
                raise _schema_error(
                    f'"minProperties": {minimum}',
                    "minProperties above 1 is not supported",
                    "List the properties in properties and required.",
                )
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(inner, depth + 1) for inner in value]
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _schema_error(f"JSON schema: {error}", "it is not valid JSON", "Correct the schema.") from None
    if not isinstance(schema, Mapping):
        raise _schema_error(
            f"JSON schema = {text[:40]}", "a schema must be a JSON object", 'Use e.g. {"type": "object"}.'
        )
    if len(text) > _MAX_SCHEMA_BYTES:
        raise _schema_error(
            f"JSON schema: {len(text):,} bytes",
            f"the maximum is {_MAX_SCHEMA_BYTES:,} bytes",
            "Use a smaller schema, or several requests.",
        )
    copy: Json = json.loads(text)
    copy.pop(_OPTIONS_KEY, None)
    return copy


def _schema_error(value: str, rule: str, fix: str) -> ConfigError:
    return ConfigError(value, rule=rule, fix=fix)
