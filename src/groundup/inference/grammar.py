"""Constrained decoding: JSON that always matches a JSON schema, also if max_tokens cuts the output.

llguidance computes the token masks from the schema's grammar and the vocabulary. In addition, a `Guide` always keeps a
completion: tokens that would end the current text validly. A sampled token is accepted only if a completion from there
fits into the remaining tokens. Otherwise the guide emits the next token of its completion. So the output is valid JSON
for any sampled tokens and any limit.

Shape letters: V vocab.
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

_MAX_SCHEMA_BYTES = 64 * 2**10  # compiles in less than a second
_MAX_DEPTH = 64  # nesting of a schema; the compiler is recursive
_MAX_COMPLETION = 4096  # tokens
_MAX_DIGITS = 64  # per number: a small model may never stop, and Python refuses to parse 5,000 digits
_MAX_CACHED = 64  # compiled schemas per vocabulary

# The style of json.dumps, which most JSON in training data has. Other white space is not allowed, because some models
# would generate it forever. \u escapes are not allowed, because half of a surrogate pair is valid JSON but not text.
_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
_OPTIONS_KEY = "x-guidance"  # a schema could change these options with it
_CLOSING = b"}],:"  # preferred bytes outside a string, in the order in which they end the text fastest
_QUOTE, _BACKSLASH = b'"'[0], b"\\"[0]

Json = dict[str, Any]


class Grammar:
    """A JSON schema compiled for a vocabulary.

    Attributes:
        schema: The JSON schema.
        min_tokens: Length of a short valid output. `max_tokens` of a request must be at least this.
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
        """Return the compiled grammar of a JSON schema, from a cache if possible.

        Args:
            schema: The JSON schema.
            tokenizer: Its vocabulary is the one to compile for.

        Returns:
            The grammar.

        Raises:
            ConfigError: The schema is invalid or too large, refers to other documents, or uses unsupported keywords.
        """
        vocabulary = _vocabulary_of(tokenizer)
        return vocabulary.grammar(_validated(schema))

    def check_max_tokens(self, max_tokens: int) -> None:
        """Check that an output fits into `max_tokens`.

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
        """Return a guide for one output.

        Args:
            max_tokens: Maximum number of output tokens, including the stop token.
            stop_ids: Stop tokens that may follow the complete output, in addition to EOS.

        Returns:
            The guide.

        Raises:
            ConfigError: `max_tokens` is less than `min_tokens`.
        """
        self.check_max_tokens(max_tokens)
        return Guide(self._matcher.deep_copy(), self._vocabulary, self._completion, max_tokens, stop_ids)


class Guide:
    """The grammar state of one output. For each token: `mask` the logits, sample, and `accept` the sampled token.

    Args:
        matcher: The matcher of the grammar; it is changed.
        vocabulary: The compiled vocabulary.
        completion: Tokens that form a complete output.
        remaining: Maximum number of tokens that may follow.
        stop_ids: Stop tokens that may follow the complete output, in addition to EOS.

    Attributes:
        stop_ids: The stop tokens, including EOS.
        truncated: Whether the token limit, and not the model, ended the output.
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
        """Whether the output is complete and cannot be continued."""
        return not self._completion and self._matcher.is_stopped()

    def mask(self, logits_V: Tensor) -> Tensor:
        """Return new logits (V,) with -inf for each token that the grammar does not allow next."""
        allowed_V = np.zeros(self._vocabulary.size, dtype=bool)
        if not self._matcher.is_stopped():
            allowed_V = self._vocabulary.allowed(self._matcher)
        if self._matcher.is_error():  # a limit of llguidance: only the stored completion is certainly valid
            allowed_V = np.zeros(self._vocabulary.size, dtype=bool)
            allowed_V[list(self._completion[:1])] = True
        if not self._completion:
            allowed_V[list(self.stop_ids)] = True
        return logits_V.masked_fill(~torch.from_numpy(allowed_V[: len(logits_V)]), -math.inf)

    def accept(self, token: int) -> int:
        """Accept a sampled token if the output can then still be completed within the limit.

        Args:
            token: A token sampled from masked logits.

        Returns:
            The token, or otherwise the next token of the stored completion.
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
        # Inside a string, the previous completion is usually still valid, and this check is fast.
        if matcher.validate_tokens([*self._completion, self._vocabulary.eos_id]) == len(self._completion) + 1:
            return self._completion
        return self._vocabulary.completion(matcher.deep_copy(), state, min(self._remaining, _MAX_COMPLETION))


@dataclass(frozen=True, slots=True)
class _JsonState:
    """The lexer state at the end of partial JSON: in a string, after a backslash, and digits of the last number."""

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
    """A tokenizer's vocabulary for llguidance, and a cache of the schemas compiled for it.

    Attributes:
        size: Number of token ids.
        tokens: Bytes of each id; empty for special tokens.
        eos_id: End-of-sequence token.
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
        key = json.dumps(schema)  # not sorted, because the output has its keys in the order of the schema
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
        """Return whether each token may come next, (V,); False for EOS."""
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = np.unpackbits(bits, bitorder="little")[: self.size].astype(bool)
        allowed_V[self.eos_id] = False
        return allowed_V

    def completion(self, matcher: LLMatcher, state: _JsonState, max_tokens: int) -> tuple[int, ...] | None:
        """Return a short sequence of tokens that completes the output; None if a greedy search finds none."""
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
        """Return the tokens of the only text that the grammar allows next; empty if there is a choice."""
        written = matcher.compute_ff_bytes()
        try:
            step = self._compiler.greedy_tokenize(written.decode()) if written else []
        except UnicodeDecodeError:  # part of a character
            return []
        return step if matcher.validate_tokens(step) == len(step) else []

    def _closing_token(self, allowed_V: npt.NDArray[np.bool_], state: _JsonState, turn: int) -> int:
        """Return an allowed token that probably brings the output closer to its end."""
        preferred = b'"' if state.quoted else _CLOSING + b'"'
        for byte in preferred:
            token = self._byte_tokens.get(byte)
            if token is not None and allowed_V[token] and not state.escaped:
                return token
        # Rotate through the other bytes, because a pattern may require a certain one.
        others = [token for byte, token in self._byte_tokens.items() if byte not in preferred and allowed_V[token]]
        if others:
            return others[turn % len(others)]
        ids = np.flatnonzero(allowed_V)
        return int(ids[np.argmin(self._lengths[ids])])

    @cached_property
    def _byte_tokens(self) -> dict[int, int]:
        """The token of each byte that is a token, in byte order."""
        return dict(sorted((token[0], number) for number, token in enumerate(self.tokens) if len(token) == 1))

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        return np.array([len(token) for token in self.tokens])


class _TokenizerAdapter:
    """A tokenizer with the attributes that llguidance expects."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        text = tokenizer.text_tokens
        self.tokens = [text.get(i) or tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = [i for i in range(tokenizer.vocab_size) if i not in text]
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, tokenizer.bos_id
        self._tokenizer = weakref.ref(tokenizer)  # weak, because the tokenizer is the key of `_vocabularies`

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
    """Return the schema as JSON values, without options of llguidance; raise ConfigError if it is invalid."""
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
            if isinstance(minimum, int) and minimum > 1:  # a repeated property name would count twice
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
