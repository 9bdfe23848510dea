"""Conversion of JSON to readable text: names become headings, and list items are marked by numbers or letters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from string import ascii_uppercase
from typing import Any


def as_text(value: Any, lettered: Collection[str] = (), *, depth: int = 0, name: str = "") -> str:
    """Return a JSON value as readable text.

    Args:
        value: JSON value to convert.
        lettered: Names of the lists whose items are marked by letters instead of numbers.
        depth: Nesting depth of the value.
        name: Name of the property that holds the value.
    """
    if isinstance(value, dict):
        return "\n".join(_entry(key, inner, lettered, depth) for key, inner in value.items())
    if isinstance(value, list):
        letters = name in lettered and len(value) <= len(ascii_uppercase)
        marks = ascii_uppercase if letters else [str(number) for number in range(1, len(value) + 1)]
        items = (as_text(item, lettered, depth=depth + 1) for item in value)
        return "\n".join(f"{mark}. {_indented(item)}" for mark, item in zip(marks, items, strict=False))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return str(value)


def in_shown_order(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return a JSON value whose properties have the order of `required` in its schema, which is the order for readers.

    A model generates properties in the order of `properties`, which may help it.

    Args:
        value: JSON value that matches the schema.
        schema: JSON schema of objects and arrays. Other schemas do not change the order.
    """
    if isinstance(value, list):
        return [in_shown_order(item, schema.get("items") or {}) for item in value]
    if not isinstance(value, dict):
        return value
    declared = schema.get("properties") or {}
    first = [name for name in schema.get("required") or () if name in value]
    return {name: in_shown_order(value[name], declared.get(name) or {}) for name in dict.fromkeys([*first, *value])}


def _entry(name: str, value: Any, lettered: Collection[str], depth: int) -> str:
    heading = name.replace("_", " ").capitalize()
    text = as_text(value, lettered, depth=depth + 1, name=name)
    if isinstance(value, dict | list) and value:
        return f"{heading}:\n{text}" if depth else f"\n{heading}\n\n{text}"
    return f"{heading}: {text}"


def _indented(text: str) -> str:
    return text.replace("\n", "\n   ")
