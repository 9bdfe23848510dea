"""Validation of inputs, and filling of prompt templates with inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.apps.declaration import FIELD, App, Input
from groundup.core.config import nearest, unknown_name
from groundup.core.errors import ConfigError
from groundup.core.plural import plural_of, pluralize
from groundup.core.types import is_blank, well_formed

Given = dict[str, Any]  # maps input names to text, numbers or labels


def check_inputs(app: App, given: Mapping[str, Any]) -> Given:
    """Validate the inputs of an application, and add default values.

    If an input has the type number or labels, text is converted to a number or is split at commas into labels.

    Args:
        app: Application that declares the inputs.
        given: Maps input names to values.

    Returns:
        A dictionary that maps each input name to its value.

    Raises:
        ConfigError: An input is missing, unknown, of the wrong type, or outside its limits.
    """
    names = [each.name for each in app.inputs]
    for name in given:
        if name not in names:
            raise unknown_name("input", str(name)[:80], names, where=app.name)
    return {each.name: check_input(app, each, given.get(each.name)) for each in app.inputs}


def check_input(app: App, declared: Input, value: Any) -> Any:
    """Validate and normalize the value of one input, see `check_inputs`.

    Args:
        app: Application that declares the input.
        declared: Declaration of the input.
        value: Given value, or None for the default value.

    Raises:
        ConfigError: The value is missing, of the wrong type, or outside its limits.
    """
    label = f"{app.name}: {declared.name}"
    if value is None or (isinstance(value, str) and is_blank(value)) or value == []:
        if declared.default is None:
            raise ConfigError(
                f"{label} is missing ({declared.about})",
                fix=f"Give {declared.name}.{_such_as(declared)}",
            )
        return declared.default
    if declared.type == "number":
        return _within(label, declared, _number(label, value))
    if declared.type == "labels":
        labels = _labels(label, value)
        _within(label, declared, len(labels), "label")
        return labels
    if not isinstance(value, str):
        raise ConfigError(f"{label} = {str(value)[:80]}", rule="must be text", fix=f"Give text.{_such_as(declared)}")
    text = well_formed(value)
    if declared.type != "text":
        text = " ".join(text.split())
    if declared.type == "choice" and text not in declared.choices:
        match = nearest(text, declared.choices)
        raise ConfigError(
            f"{label} = {text[:80]}",
            rule=f"must be one of {', '.join(declared.choices)}",
            fix=f"Did you mean {match}?" if match else "Choose one of these.",
        )
    _within(label, declared, len(text), "character")
    return text


def _number(label: str, value: Any) -> int:
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{label} = {str(value)[:80]}", rule="must be a whole number", fix="Give a number such as 5.")
    return value


def _labels(label: str, value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(
            f"{label} = {str(value)[:80]}", rule="labels must be text", fix="Separate labels by commas, or give a list."
        )
    return tuple(dict.fromkeys(" ".join(well_formed(part).split()) for part in parts if part.strip()))


def _within(label: str, declared: Input, size: int, unit: str = "") -> int:
    low, high = declared.min, declared.max
    if size < low or (high is not None and size > high):
        plural = f" {plural_of(unit)}" if unit else ""
        limits = f"at least {low:,}{plural}" if high is None else f"from {low:,} to {high:,}{plural}"
        found = f"{label} has {pluralize(size, unit)}" if unit else f"{label} = {size:,}"
        fix = "Give more." if size < low else "Give less."
        raise ConfigError(found, rule=f"must {'have' if unit else 'be'} {limits}", fix=fix)
    return size


def _such_as(declared: Input) -> str:
    example = declared.example
    shown = ", ".join(example) if isinstance(example, tuple) else str(example)
    return f" For example: {shown[:80]}" if shown else ""


def render_template(template: str, given: Mapping[str, Any]) -> str:
    """Replace each {name} in a template by the value of the input. A line is left out if all its inputs are empty.

    Braces that occur in a value are not replaced.

    Args:
        template: Template that contains {name} for each input.
        given: Maps input names to values.
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
