"""What a person gives an application: checked against its declaration, and put into the words of a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.apps.declaration import FIELD, App, Input
from groundup.core.config import nearest
from groundup.core.errors import ConfigError
from groundup.core.types import is_blank, well_formed

Given = dict[str, Any]  # a text, number or list of labels for each input


def check_inputs(app: App, given: Mapping[str, Any]) -> Given:
    """The value of each input: what was given, or its default.

    Text from a form or a table stands for a number or labels (commas between them), too.

    Raises:
        ConfigError: an input that is missing, unknown, of another type or beyond its limits.
    """
    names = [each.name for each in app.inputs]
    for name in given:
        if name not in names:
            match = nearest(name, names)
            fix = f"Did you mean {match}?" if match else f"Its inputs are {', '.join(names)}."
            raise ConfigError(f"{app.name}: {str(name)[:80]}", rule="an application takes its own inputs only", fix=fix)
    return {each.name: _value(app, each, given.get(each.name)) for each in app.inputs}


def _value(app: App, declared: Input, value: Any) -> Any:
    label = f"{app.name}: {declared.name}"
    if value is None or (isinstance(value, str) and is_blank(value)) or value == []:
        if declared.default is None:
            raise ConfigError(
                f"{label} is missing",
                rule=f"needed: {declared.about}",
                fix=f"Give {declared.name}.{_such_as(declared)}",
            )
        return declared.default
    if declared.type == "number":
        return _within(label, declared, _number(label, value), "")
    if declared.type == "labels":
        labels = _labels(label, value)
        _within(label, declared, len(labels), " labels")
        return labels
    if not isinstance(value, str):
        raise ConfigError(f"{label} = {str(value)[:80]}", rule="it is text", fix=f"Give text.{_such_as(declared)}")
    text = well_formed(value)
    if declared.type != "text":
        text = " ".join(text.split())
    if declared.type == "choice" and text not in declared.choices:
        match = nearest(text, declared.choices)
        raise ConfigError(
            f"{label} = {text[:80]}",
            rule=f"it is one of: {', '.join(declared.choices)}",
            fix=f"Did you mean {match}?" if match else "Choose one of them.",
        )
    _within(label, declared, len(text), " characters")
    return text


def _number(label: str, value: Any) -> int:
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{label} = {str(value)[:80]}", rule="it is a whole number", fix="Give e.g. 5.")
    return value


def _labels(label: str, value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(
            f"{label} = {str(value)[:80]}", rule="labels are texts", fix="Give them with commas between, or as a list."
        )
    return tuple(dict.fromkeys(" ".join(well_formed(part).split()) for part in parts if part.strip()))


def _within(label: str, declared: Input, size: int, unit: str) -> int:
    low, high = declared.min, declared.max
    if size < low or (high is not None and size > high):
        limits = f"at least {low:,}{unit}" if high is None else f"from {low:,} to {high:,}{unit}"
        fix = "Give more." if size < low else "Give less."
        raise ConfigError(f"{label}: {size:,}{unit}", rule=f"it has {limits}" if unit else f"it is {limits}", fix=fix)
    return size


def _such_as(declared: Input) -> str:
    example = declared.example
    shown = ", ".join(example) if isinstance(example, tuple) else str(example)
    return f" For example: {shown[:80]}" if shown else ""


def render_template(template: str, given: Mapping[str, Any]) -> str:
    """The template with the values of inputs in it; a line of which all are empty is left out.

    What is in a value stays as it is: braces in it are no inputs.
    """

    def words(name: str) -> str:
        value = given[name]
        return ", ".join(value) if isinstance(value, list | tuple) else str(value)

    lines = []
    for line in template.split("\n"):
        names = FIELD.findall(line)
        if not names or any(words(name) for name in names):
            lines.append(FIELD.sub(lambda found: words(found[1]), line))
    return "\n".join(lines)
