"""Checks of JSON schemas before they are compiled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from groundup.core.errors import ConfigError

MAX_BYTES = 64 * 2**10  # a schema of this size compiles in less than a second
_MAX_DEPTH = 64  # maximum nesting depth of a schema, because the compiler is recursive
_OPTIONS_KEY = "x-guidance"  # a schema could use this key to change the format of the output

Json = dict[str, Any]


def checked_schema(schema: Mapping[str, Any]) -> Json:
    """Return a JSON schema as JSON values, without options of llguidance.

    Args:
        schema: JSON schema from a user.

    Returns:
        A copy of the schema.

    Raises:
        ConfigError: The schema is not JSON, is too large or too deep, or has a keyword that would be ignored.
    """
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ConfigError(
                f"JSON schema with {depth} levels",
                rule=f"the maximum nesting is {_MAX_DEPTH}",
                fix="Move nested parts to $defs.",
            )
        if isinstance(value, Mapping):
            _check_keywords(value)
            waiting += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple):
            waiting += [(inner, depth + 1) for inner in value]
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"JSON schema: {error}", rule="it is not valid JSON", fix="Correct the schema.") from None
    if not isinstance(schema, Mapping):
        raise ConfigError(
            f"JSON schema = {text[:40]}", rule="a schema must be a JSON object", fix='Use e.g. {"type": "object"}.'
        )
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"JSON schema: {len(text):,} bytes",
            rule=f"the maximum is {MAX_BYTES:,} bytes",
            fix="Use a smaller schema, or several requests.",
        )
    copy: Json = json.loads(text)
    copy.pop(_OPTIONS_KEY, None)
    return copy


def _check_keywords(schema: Mapping[str, Any]) -> None:
    target = schema.get("$ref")
    if isinstance(target, str) and not target.startswith("#"):
        raise ConfigError(
            f'"$ref": {json.dumps(target[:80])}',
            rule="only references within the schema are supported",
            fix='Move the target to "$defs" and refer to it as "#/$defs/NAME".',
        )
    minimum = schema.get("minProperties")
    if isinstance(minimum, int) and minimum > 1:  # llguidance would count a repeated property name twice
        raise ConfigError(
            f'"minProperties": {minimum}',
            rule="minProperties above 1 is not supported",
            fix="List the properties in properties and required.",
        )
