"""Grammars for answers with tool calls, so that each call is valid.

If the model may choose between text and calls, its text is not constrained until a call begins. A call then has the
format of the model, the name of a given function, and arguments that match the JSON schema of the function.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.core.errors import ConfigError
from groundup.inference import Grammar
from groundup.inference.grammar import JSON_STYLE, checked_schema
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.tool_format import ToolFormat

_MAX_CALLS = 32  # calls per answer, because some small models would repeat a call forever

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallableFunction:
    """A function that the model may call.

    Attributes:
        name: Name of the function.
        parameters: JSON schema of the arguments.
        strict: Whether keywords of the schema that a grammar cannot express are errors. Otherwise they are ignored.
    """

    name: str
    parameters: Mapping[str, Any]
    strict: bool = False


def special_ids(format: ToolFormat, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the IDs of the special tokens that a tool call consists of. The parser must see them in the text.

    Args:
        format: Format of tool calls.
        tokenizer: Tokenizer of the model.
    """
    return tuple(token for token in _control_tokens(format, tokenizer).values() if token in tokenizer.special_ids)


def tool_grammar(
    format: ToolFormat,
    functions: Sequence[CallableFunction],
    tokenizer: Tokenizer,
    cancelled: threading.Event | None = None,
    *,
    required: bool,
    parallel: bool,
    answer_schema: Mapping[str, Any] | None = None,
) -> Grammar:
    """Return the grammar of an answer with tool calls.

    Args:
        format: Format in which the model writes tool calls.
        functions: Functions that the model may call.
        tokenizer: Tokenizer of the model.
        cancelled: Set when the grammar is not needed any more.
        required: Whether the answer must consist of calls. Otherwise it is text, which calls may follow.
        parallel: Whether an answer may contain several calls.
        answer_schema: JSON schema of an answer without calls, or None if this answer is text.

    Raises:
        ConfigError: A JSON schema is invalid or too large, or a strict one has an unsupported keyword.
    """
    if answer_schema is not None and format.is_bare and not required:
        raise ConfigError(
            "tools with a JSON schema of the answer",
            rule="this model writes tool calls as JSON without a marker, so an answer in JSON can look like a call",
            fix="Omit one of them, or require a tool call.",
        )
    writer = _Writer(format, tokenizer)
    schemas = [_json_rule(_argument_schema(each, tokenizer), strict=each.strict) for each in functions]
    calls = [f"{writer.symbols(f.name + format.middle)} {rule}" for f, rule in zip(functions, schemas, strict=True)]
    rules = []
    again = f"({writer.symbols(format.separator)} call){{0,{_MAX_CALLS - 1}}}" if parallel and format.separator else ""
    rest = f"call {again} {writer.symbols(format.closing)}"
    tag = f"{writer.symbols(format.tag)}? " if format.tag else ""
    whole = f"{tag}{writer.symbols(format.opening)} {rest}"
    if required:
        rules.append(f"start: {whole}")
    elif answer_schema is not None:
        rules.append(f"start: {whole} | {_json_rule(checked_schema(answer_schema), strict=True)}")
    else:
        rules += writer.text_rules(whole, rest)
    text = "\n".join(["%llguidance {}", f"call: {' | '.join(calls)}", *rules])
    return Grammar.of_lark(text, tokenizer, cancelled, ends_in_json=True)


class _Writer:
    """Writer of rules in llguidance's variant of Lark, for one format and one vocabulary."""

    def __init__(self, format: ToolFormat, tokenizer: Tokenizer) -> None:
        self._format = format
        self._tokens = _control_tokens(format, tokenizer)
        # Models write other control tokens, such as `<think>`, before a call. Special tokens are not text.
        self._in_text = sorted(
            token
            for token in tokenizer.control_tokens.values()
            if token not in tokenizer.special_ids and token not in self._tokens.values()
        )

    def symbols(self, text: str) -> str:
        """Return the sequence of literals and token IDs that matches a text of the format."""
        names = sorted(self._tokens, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
        written = [f"<[{self._tokens[each]}]>" if each in self._tokens else json.dumps(each) for each in pieces if each]
        return " ".join(written)

    def text_rules(self, whole: str, rest: str) -> list[str]:
        """Return the rules of an answer that is text, calls, or text and then calls.

        Args:
            whole: Symbols of the calls.
            rest: Symbols of the calls after the opening.
        """
        format = self._format
        marker, unlike = _pattern(format.marker), "(?s:.*)" if not format.is_bare else ""
        tokens = f"<[{','.join(map(str, self._in_text))}]>" if self._in_text else ""
        rules = [
            f"TEXT: /(?s:.+)/ & ~/{unlike}{marker}(?s:.*)/",
            f"text: TEXT? ({tokens} TEXT?)*" if tokens else "text: TEXT?",
        ]
        if format.is_bare:
            return [f"start: text | {whole}", *rules]
        if any(format.marker.startswith(name) for name in self._tokens):
            return [f"start: text | text {whole}", *rules]
        opening = self.symbols(format.opening.removeprefix(format.marker))
        before = f"(TEXT? {tokens})* " if tokens else ""
        begin = f"begin[lazy]: /(?s:.*)/ {json.dumps(format.marker)}"
        return [f"start: text | {before}begin {opening} {rest}", begin, *rules]


def _control_tokens(format: ToolFormat, tokenizer: Tokenizer) -> dict[str, int]:
    """Return the control tokens that occur in the texts of a format, keyed by name."""
    texts = (format.tag, format.opening, format.middle, format.separator or "", format.closing)
    return {name: token for name, token in tokenizer.control_tokens.items() if any(name in text for text in texts)}


def _argument_schema(function: CallableFunction, tokenizer: Tokenizer) -> Json:
    """Return the schema of the arguments. Unless the schema allows other arguments, only described ones are allowed."""
    try:
        schema = checked_schema(function.parameters)
        if function.strict:  # compiled alone, so that an error message names the function
            Grammar.of_schema(schema, tokenizer)
    except ConfigError as error:
        raise ConfigError(f"function {function.name!r}: {error.value}", rule=error.rule, fix=error.fix) from error
    if schema.setdefault("type", "object") != "object":
        raise ConfigError(
            f"function {function.name!r}: parameters of type {str(schema['type'])[:40]!r}",
            rule="the arguments of a function are a JSON object",
            fix='Use {"type": "object", "properties": ...}.',
        )
    composed = {"$ref", "allOf", "anyOf", "oneOf", "patternProperties"} & schema.keys()
    return schema if composed else {"additionalProperties": False} | schema


def _json_rule(schema: Mapping[str, Any], *, strict: bool) -> str:
    options = JSON_STYLE if strict else JSON_STYLE | {"lenient": True, "coerce_one_of": True}
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def _pattern(text: str) -> str:
    """Return the regex of a literal text, in which all characters except ASCII letters and digits are escaped."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
