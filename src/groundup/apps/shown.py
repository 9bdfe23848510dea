"""JSON as a person reads it: names as headings, lists with numbers."""

from __future__ import annotations

from typing import Any


def as_text(value: Any, depth: int = 0) -> str:
    """The text of a JSON value, whatever its schema."""
    if isinstance(value, dict):
        return "\n".join(_entry(name, inner, depth) for name, inner in value.items())
    if isinstance(value, list):
        return "\n".join(f"{number}. {_indented(as_text(item, depth + 1))}" for number, item in enumerate(value, 1))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return str(value)


def _entry(name: str, value: Any, depth: int) -> str:
    heading = name.replace("_", " ").capitalize()
    text = as_text(value, depth + 1)
    if isinstance(value, dict | list) and value:
        return f"{heading}:\n{text}" if depth else f"\n{heading}\n\n{text}"
    return f"{heading}: {text}"


def _indented(text: str) -> str:
    return text.replace("\n", "\n   ")
