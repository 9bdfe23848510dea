"""Formats of grammars, converted to the format of llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher, regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from groundup.core.errors import ConfigError
from groundup.inference.grammar.schemas import MAX_BYTES, checked_schema

_MAX_LITERALS = 128
_MAX_GBNF_RULES = 500  # the converter's time is quadratic
# The output has the format of json.dumps, which is the most common format in training data. Other whitespace is not
# allowed, because some models would generate it forever. \u escapes are not allowed, because half of a surrogate pair
# is valid JSON but not valid text.
JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}
_ASCII_CLASSES = "dw"  # \d and \w match only ASCII, as in the patterns of JSON schemas
_REGEX_SPECIAL = frozenset(r"\.+*?()|[]{}^$#&-~/")
_LITERALS = (  # two or more characters without special meaning; a slash may be one, or the end of a regex in Lark
    re.compile(r"(?:\\[^\w\s]|\\[nrt]|[^\\\[\](){}|.*+?^$\"]){2,}"),
    re.compile(r"(?:\\[^\w\s]|\\[nrt]|[^\\\[\](){}|.*+?^$\"/]){2,}"),
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class GrammarSource:
    """A grammar before its compilation.

    Attributes:
        kind: Name of the format for messages, such as "JSON schema".
        text: The grammar in the format of llguidance.
        advice: What to change if the compiler refuses the grammar.
        is_json: Whether all of the output is one JSON value.
        ends_in_json: Whether the output is optional free text and then JSON.
        literals: Texts that occur in the grammar. Some of them probably occur in the output.
    """

    kind: str
    text: str
    advice: str
    is_json: bool = False
    ends_in_json: bool = False
    literals: tuple[str, ...] = ()


def from_schema(schema: Mapping[str, Any]) -> GrammarSource:
    """Return the grammar of a JSON schema; see `Grammar.of_schema`."""
    given = json.dumps(checked_schema(schema))  # not sorted, because the order of keys matters for the output
    return GrammarSource(
        "JSON schema",
        LLMatcher.grammar_from_json_schema(given, overrides=JSON_STYLE),  # type: ignore[arg-type]
        "Remove the keyword that the message names, or use type, properties, required, items, enum, anyOf (not oneOf), "
        "minimum, maxLength or a simpler pattern.",
        is_json=True,
    )


def from_regex(pattern: str) -> GrammarSource:
    """Return the grammar of a regex; see `Grammar.of_regex`."""
    _check_text("regex", pattern)
    return GrammarSource(
        "regex",
        _lark(f"start: /{regex_to_lark(pattern, _ASCII_CLASSES)}/"),
        "Use the syntax of Rust's regex crate, without look-around and backreferences, and smaller repeat counts.",
        literals=_literals(pattern),
    )


def from_choices(choices: Sequence[str]) -> GrammarSource:
    """Return the grammar of a list of texts; see `Grammar.of_choice`."""
    if isinstance(choices, str) or not choices or not all(isinstance(each, str) for each in choices):
        raise ConfigError(
            f"choices = {choices!r:.60}", rule="must be a list of texts", fix='Give e.g. ["positive", "negative"].'
        )
    pattern = "|".join("".join("\\" + c if c in _REGEX_SPECIAL else c for c in choice) for choice in choices)
    _check_text("choices", pattern or "-")
    return GrammarSource(
        "choices",
        _lark(f"start: /({regex_to_lark(pattern)})/"),
        "Give fewer or shorter choices.",
        literals=tuple(sorted(set(choices), key=len)[:_MAX_LITERALS]),
    )


def from_spans(text: str, others: Sequence[str]) -> GrammarSource:
    """Return the grammar of the spans of a text; see `Grammar.of_spans`."""
    _check_text("text", text)
    alternatives = "".join(f" | {json.dumps(other, ensure_ascii=False)}" for other in others)
    words = json.dumps({"substring_words": text}, ensure_ascii=False)
    return GrammarSource(
        "span of a text",
        _lark(f"%llguidance {{}}\nstart: SPAN{alternatives}\nSPAN: %regex {words}\n"),
        "Give a shorter text.",
    )


def from_lark(grammar: str, *, ends_in_json: bool = False) -> GrammarSource:
    """Return a context-free grammar; see `Grammar.of_lark`."""
    _check_text("grammar", grammar)
    if (rules := grammar.count("::=")) > _MAX_GBNF_RULES:
        raise ConfigError(f"grammar: {rules:,} rules", rule=f"the maximum is {_MAX_GBNF_RULES}", fix="Remove rules.")
    try:
        lark = any_to_lark(grammar)
    except Exception as error:  # the converter raises several types
        raise ConfigError(
            f"grammar: {' '.join(str(error).split())[:200]}", rule="it is not valid GBNF", fix="Correct the grammar."
        ) from None
    return GrammarSource(
        "grammar",
        _lark(lark),
        "Write it in llguidance's variant of Lark with the rule start, or in GBNF with the rule root.",
        ends_in_json=ends_in_json,
        literals=_literals(lark),
    )


def _check_text(kind: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{kind}: half of a surrogate pair", fix="Send valid Unicode.") from None
    if not 0 < size <= MAX_BYTES:
        raise ConfigError(f"{kind}: {size:,} bytes", rule=f"must have 1 to {MAX_BYTES:,} bytes", fix="Change its size.")


def _lark(grammar: str) -> str:
    # Text that begins with "{" would otherwise have a different meaning for llguidance.
    return json.dumps({"grammars": [{"lark_grammar": grammar}]})


def _literals(text: str) -> tuple[str, ...]:
    runs = {run for literal in _LITERALS for run in literal.findall(text)}
    found = {_ESCAPE.sub(lambda match: _CONTROLS.get(match[1], match[1]), run) for run in runs}
    return tuple(sorted(found, key=len)[:_MAX_LITERALS])
