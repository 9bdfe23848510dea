"""Multiple-choice questions, as a model writes them and as readers get them.

Readers get a list of options and the letter of the correct one. A model writes the correct option, then the question,
and then the wrong options, because a small model can write a question for an answer, but not for a letter.
"""

from __future__ import annotations

import json
import random
from string import ascii_uppercase
from typing import Any

ANSWER, WRONG = "answer", "wrong"


def written_schema(schema: Any, options: str) -> Any:
    """Return the JSON schema of what a model writes.

    Args:
        schema: JSON schema for readers. Its objects with the list `options` have the letter `answer`.
        options: Name of the list of options.
    """
    if isinstance(schema, list):
        return [written_schema(each, options) for each in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties", {})
    if options not in properties:
        return {key: written_schema(value, options) for key, value in schema.items()}
    listed = properties[options]
    wrong = listed | {side: listed[side] - 1 for side in ("minItems", "maxItems") if side in listed}
    others = {name: value for name, value in properties.items() if name not in (options, ANSWER)}
    written = {ANSWER: listed["items"], **others, WRONG: wrong}
    return schema | {"properties": written, "required": list(written)}


def readable_value(text: str, options: str) -> Any:
    """Return the JSON value that readers get of a JSON text that a model wrote.

    Args:
        text: JSON text.
        options: Name of the list of options, or "" if there are none.
    """
    value = json.loads(text)
    return with_letters(value, options) if options else value


def with_letters(value: Any, options: str) -> Any:
    """Return what readers get: the options in random order, and the letter of the correct one.

    Args:
        value: JSON value that a model wrote.
        options: Name of the list of options.
    """
    if isinstance(value, list):
        return [with_letters(each, options) for each in value]
    if not isinstance(value, dict):
        return value
    if ANSWER not in value or WRONG not in value:
        return {key: with_letters(each, options) for key, each in value.items()}
    listed = [value[ANSWER], *value[WRONG]]
    random.Random(json.dumps(value, sort_keys=True)).shuffle(listed)
    others = {name: each for name, each in value.items() if name not in (ANSWER, WRONG)}
    return others | {options: listed, ANSWER: ascii_uppercase[listed.index(value[ANSWER])]}
