"""JSON that is what a schema says: which tokens may come next, and that the text is whole when the tokens run out.

Masks come from llguidance, which walks the schema's grammar byte by byte over this vocabulary. Beside them a `Guide`
always holds a way out: tokens that end the text validly from where it stands. A token is taken only if there is still
one that fits into what is left; otherwise the way out is gone, one step. So no draw and no limit makes invalid JSON.

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

_MOST_BYTES = 64 * 2**10  # of a schema: compiled in well under a second
_MOST_NESTING = 64  # the compiler goes down level by level on a stack
_MOST_WAY_OUT = 4096  # tokens
_MOST_DIGITS = 64  # in a row: a small model may never stop, and Python reads no number of 5,000
_KEPT = 64  # compiled schemas of a vocabulary

# As json.dumps writes it, which is how most JSON that models have read looks. No other white space: a model that likes
# it would write it without end. No \u escapes: half of a surrogate pair is valid JSON, and no text.
_WRITTEN = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
_OWN_OPTIONS = "x-guidance"  # by which a schema could change them
_CLOSING = b"}],:"  # outside of a string, what ends soonest comes first
_QUOTE, _BACKSLASH = b'"'[0], b"\\"[0]

Json = dict[str, Any]


class Grammar:
    """A schema, compiled for a vocabulary.

    Attributes:
        schema: the JSON schema.
        least_tokens: how many tokens are enough for a text of it, and the fewest that a request may be given.
    """

    def __init__(self, schema: Json, vocabulary: _Vocabulary) -> None:
        self.schema = schema
        self._vocabulary = vocabulary
        self._matcher = vocabulary.matcher(schema)
        way_out = vocabulary.way_out(self._matcher, _Place(), _MOST_WAY_OUT)
        if way_out is None:
            raise _refused(
                "a schema without a short text",
                f"there must be an answer of {_MOST_WAY_OUT:,} tokens or fewer, found without trying everything",
                "Lower minItems and minLength, simplify patterns, and let recursion end.",
            )
        self.least_tokens = len(way_out)
        self._way_out = way_out

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any], tokenizer: Tokenizer) -> Grammar:
        """Compile a JSON schema, or find it compiled.

        Raises:
            ConfigError: it is not a schema, too large, refers to other places, or uses what cannot be promised.
        """
        vocabulary = _vocabulary_of(tokenizer)
        return vocabulary.grammar(_checked(schema))

    def require_room(self, max_tokens: int) -> None:
        """Raises ConfigError where so many tokens may be too few for any text."""
        if max_tokens < self.least_tokens:
            raise _refused(
                f"room for {max_tokens} tokens",
                f"a text of this schema may need {self.least_tokens}",
                f"Give max_tokens >= {self.least_tokens}, a shorter prompt, or a smaller schema.",
            )

    def start(self, max_tokens: int, stop_ids: Collection[int]) -> Guide:
        """A guide for one text of at most so many tokens, the one that stops it included.

        Raises:
            ConfigError: too few for any text.
        """
        self.require_room(max_tokens)
        return Guide(self._matcher.deep_copy(), self._vocabulary, self._way_out, max_tokens, stop_ids)


class Guide:
    """One text on its way: `mask` the logits, draw, and `accept` what was drawn.

    Args:
        left: tokens that the text may still have.
        stop_ids: tokens that may come once the text is whole; EOS always may.

    Attributes:
        stop_ids: the same, EOS among them.
        cut: something else would have come, had there been more room.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: _Vocabulary,
        way_out: tuple[int, ...],
        left: int,
        stop_ids: Collection[int],
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._way_out = way_out
        self._left = left
        self._place = _Place()
        self.stop_ids = frozenset(stop_ids) | {vocabulary.end}
        self.cut = False

    @property
    def finished(self) -> bool:
        """Whether nothing can come after what there is."""
        return not self._way_out and self._matcher.is_stopped()

    def mask(self, logits_V: Tensor) -> Tensor:
        """New logits (V,): -inf for each token that cannot come next."""
        allowed_V = np.zeros(self._vocabulary.size, dtype=bool)
        if not self._matcher.is_stopped():
            allowed_V = self._vocabulary.allowed(self._matcher)
        if self._matcher.is_error():  # a limit of the compiler's: then the way out is all that is certain
            allowed_V = np.zeros(self._vocabulary.size, dtype=bool)
            allowed_V[list(self._way_out[:1])] = True
        if not self._way_out:
            allowed_V[list(self.stop_ids)] = True
        return logits_V.masked_fill(~torch.from_numpy(allowed_V[: len(logits_V)]), -math.inf)

    def accept(self, token: int) -> int:
        """Take a token that was drawn from masked logits, or else a step on the way out; returns the one taken."""
        self._left -= 1
        if token in self.stop_ids and not self._way_out:
            return token
        tried = self._matcher.deep_copy()
        if not tried.is_error() and tried.validate_tokens([token]) == 1 and tried.consume_token(token):
            place = self._place.after(self._vocabulary.tokens[token])
            way_out = self._way_out_of(tried, token, place)
            if way_out is not None and len(way_out) <= self._left and place.digits <= _MOST_DIGITS:
                self._matcher, self._place, self._way_out = tried, place, way_out
                return token
        self.cut = True
        if not self._way_out:  # whole as it is
            return self._vocabulary.end
        token, *rest = self._way_out
        self._matcher.consume_token(token)
        self._place, self._way_out = self._place.after(self._vocabulary.tokens[token]), tuple(rest)
        return token

    def _way_out_of(self, matcher: LLMatcher, token: int, place: _Place) -> tuple[int, ...] | None:
        if self._way_out[:1] == (token,):
            return self._way_out[1:]
        # Inside of a string the old one mostly still holds, and to see that is all that most tokens cost.
        if matcher.validate_tokens([*self._way_out, self._vocabulary.end]) == len(self._way_out) + 1:
            return self._way_out
        return self._vocabulary.way_out(matcher.deep_copy(), place, min(self._left, _MOST_WAY_OUT))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where JSON so far ends: inside of a string, there after a backslash, or after so many digits of a number."""

    quoted: bool = False
    escaped: bool = False
    digits: int = 0

    def after(self, written: bytes) -> _Place:
        quoted, escaped, digits = self.quoted, self.escaped, self.digits
        for byte in written:
            digits = digits + 1 if byte in b"0123456789" and not quoted else 0
            if escaped:
                escaped = False
            elif byte == _QUOTE:
                quoted = not quoted
            elif byte == _BACKSLASH:
                escaped = quoted
        return _Place(quoted, escaped, digits)


class _Vocabulary:
    """A tokenizer as llguidance wants it, and the schemas that were compiled for it.

    Attributes:
        tokens: the bytes of each id; none of those that no text has.
        end: the id by which llguidance is told that a text ends.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        text = tokenizer.text_tokens
        self.size = tokenizer.vocab_size
        self.tokens = [text.get(i, b"") for i in range(self.size)]
        self.end = tokenizer.eos_id
        self._compiler = LLTokenizer(TokenizerWrapper(_Described(tokenizer)))
        self._grammars: dict[str, Grammar] = {}
        self._lock = threading.Lock()

    def grammar(self, schema: Json) -> Grammar:
        key = json.dumps(schema)  # the order of keys is that of the text, so it counts
        with self._lock:
            found = self._grammars.pop(key, None) or Grammar(schema, self)
            self._grammars[key] = found
            while len(self._grammars) > _KEPT:
                del self._grammars[next(iter(self._grammars))]
        return found

    def matcher(self, schema: Json) -> LLMatcher:
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_WRITTEN)  # type: ignore[arg-type]
        matcher = LLMatcher(self._compiler, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))
        if matcher.is_error():
            reason = " ".join(matcher.get_error().split())[:200]
            raise _refused(
                f"a schema that cannot be followed: {reason}",
                "each rule of it must be one that is promised to hold",
                "Leave that out, or say it with type, properties, required, items, enum, anyOf (not oneOf), minimum, "
                "maxLength, a simpler pattern, and their like.",
            )
        return matcher

    def allowed(self, matcher: LLMatcher) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, (V,), those that end the text apart."""
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = np.unpackbits(bits, bitorder="little")[: self.size].astype(bool)
        allowed_V[self.end] = False
        return allowed_V

    def way_out(self, matcher: LLMatcher, place: _Place, most: int) -> tuple[int, ...] | None:
        """Tokens that end the text, not many more than are needed; None if they were not found. Takes the matcher."""
        matcher = matcher.deep_copy()
        found: list[int] = []
        turn = 0
        while not matcher.is_accepting():
            step = self._forced(matcher)
            if not step:
                allowed_V = self.allowed(matcher)
                if matcher.is_error() or not allowed_V.any():
                    return None
                step = [self._closing(allowed_V, place, turn)]
                turn += 1
            found += step
            if len(found) > most or not matcher.consume_tokens(step):
                return None
            place = place.after(b"".join(self.tokens[token] for token in step))
        return tuple(found)

    def _forced(self, matcher: LLMatcher) -> list[int]:
        """The tokens of what has to come next, if anything has to."""
        written = matcher.compute_ff_bytes()
        try:
            step = self._compiler.greedy_tokenize(written.decode()) if written else []
        except UnicodeDecodeError:  # part of a character
            return []
        return step if matcher.validate_tokens(step) == len(step) else []

    def _closing(self, allowed_V: npt.NDArray[np.bool_], place: _Place, turn: int) -> int:
        """A token that leads towards an end, as far as one can tell by looking at it."""
        preferred = b'"' if place.quoted else _CLOSING + b'"'
        for byte in preferred:
            token = self._single.get(byte)
            if token is not None and allowed_V[token] and not place.escaped:
                return token
        # Others in turn: a pattern may want a certain one, and must get it some time.
        others = [token for byte, token in self._single.items() if byte not in preferred and allowed_V[token]]
        if others:
            return others[turn % len(others)]
        places = np.flatnonzero(allowed_V)
        return int(places[np.argmin(self._lengths[places])])

    @cached_property
    def _single(self) -> dict[int, int]:
        """The tokens of one byte, in the order of their bytes."""
        return dict(sorted((token[0], number) for number, token in enumerate(self.tokens) if len(token) == 1))

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        return np.array([len(token) for token in self.tokens])


class _Described:
    """A tokenizer by the names that llguidance asks for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        text = tokenizer.text_tokens
        self.tokens = [text.get(i) or tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = [i for i in range(tokenizer.vocab_size) if i not in text]
        self.eos_token_id, self.bos_token_id = tokenizer.eos_id, tokenizer.bos_id
        self._tokenizer = weakref.ref(tokenizer)  # which is the key under which all of this is kept

    def __call__(self, text: str | bytes) -> list[int]:
        tokenizer = self._tokenizer()
        assert tokenizer is not None
        return tokenizer.encode(text.decode() if isinstance(text, bytes) else text, continues=True)


_vocabularies: weakref.WeakKeyDictionary[Tokenizer, _Vocabulary] = weakref.WeakKeyDictionary()
_opening = threading.Lock()


def _vocabulary_of(tokenizer: Tokenizer) -> _Vocabulary:
    with _opening:
        found = _vocabularies.get(tokenizer)
        if found is None:
            found = _vocabularies[tokenizer] = _Vocabulary(tokenizer)
        return found


def _checked(schema: Mapping[str, Any]) -> Json:
    """The schema as plain JSON, without what would change how it is read.

    Raises:
        ConfigError: see `Grammar.of_schema`.
    """
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MOST_NESTING:
            raise _refused(
                f"a schema nested {depth} deep", f"it is at most {_MOST_NESTING} deep", "Name its parts in $defs."
            )
        if isinstance(value, Mapping):
            target = value.get("$ref")
            if isinstance(target, str) and not target.startswith("#"):
                raise _refused(
                    f'"$ref": {json.dumps(target[:80])}',
                    "a schema refers to its own parts only; nothing is fetched",
                    'Put that part into "$defs" and refer to it as "#/$defs/NAME".',
                )
            least = value.get("minProperties")
            if isinstance(least, int) and least > 1:  # a name that comes twice would count twice
                raise _refused(
                    f'"minProperties": {least}',
                    "how many properties there are cannot be promised, only which",
                    "Name them in properties and required.",
                )
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(inner, depth + 1) for inner in value]
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _refused(f"a schema that is no JSON: {error}", "a schema is a JSON object", "Write it as JSON.") from None
    if not isinstance(schema, Mapping):
        raise _refused(f"a schema that is {text[:40]}", "a schema is a JSON object", 'Give e.g. {"type": "object"}.')
    if len(text) > _MOST_BYTES:
        raise _refused(
            f"a schema of {len(text):,} bytes", f"it has at most {_MOST_BYTES:,}", "Ask for less in one answer."
        )
    plain: Json = json.loads(text)
    plain.pop(_OWN_OPTIONS, None)
    return plain


def _refused(value: str, rule: str, fix: str) -> ConfigError:
    return ConfigError(value, rule=rule, fix=fix)
