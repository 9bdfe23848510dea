"""Recipes as text: reading TOML, `a.b=VALUE` overrides, the annotated defaults of `groundup config STAGE`."""

from __future__ import annotations

import copy
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import tomlkit
from tomlkit.items import Table

from groundup.core.config.declare import Config, Setting, settings_of, tables_in
from groundup.core.errors import ConfigError

_COMMENT_WIDTH = 100


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file (UTF-8, a byte order mark is ignored).

    Raises:
        ConfigError: the file is absent, unreadable, or not TOML (with line and column).
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        rule, fix = "a recipe is a TOML file that can be read", "Check the path."
        raise ConfigError(f"{path}: {error.strerror}", rule=rule, fix=fix) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fix = 'Mend that place; text needs quotes: key = "text".'
        raise ConfigError(f"{path}: {error}", rule="a recipe is TOML in UTF-8", fix=fix) from None


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Put `a.b=VALUE` overrides over a mapping; returns a new one.

    VALUE is TOML (`3`, `true`, `[1, 2]`, `{kind="folder", path="~/notes"}`); what is not TOML and does not
    begin like it is taken as text. No VALUE at all takes the key out, so that its default counts. A number among the
    keys is an index into a list: `sources.0.path=x`.

    Raises:
        ConfigError: no "=", an empty key, a broken value, or a key inside something that is no table.
    """
    result = copy.deepcopy(dict(values))
    for override in overrides:
        dotted, equals, text = override.partition("=")
        parts = [part.strip() for part in dotted.split(".")]
        if not equals or not all(parts):
            wanted = dotted.strip() if all(parts) else "KEY"
            rule, fix = "an override is KEY=VALUE", f"Write --set {wanted}=VALUE."
            raise ConfigError(f"--set {override}", rule=rule, fix=fix)
        holder: Any = result
        for part in parts[:-1]:
            if isinstance(holder, dict):
                holder = holder.setdefault(part, {})
            else:
                holder = holder[_index(holder, part, override)]
        if not text.strip() and isinstance(holder, dict):
            holder.pop(parts[-1], None)
            continue
        last = parts[-1] if isinstance(holder, dict) else _index(holder, parts[-1], override)
        holder[last] = _value(text.strip(), override)
    return result


def _index(holder: Any, part: str, override: str) -> int:
    if isinstance(holder, list) and part.isdecimal() and int(part) < len(holder):
        return int(part)
    found = f"a list of {len(holder)}" if isinstance(holder, list) else repr(holder)
    raise ConfigError(
        f"--set {override}: {part} is looked for in {found}",
        rule="what stands before a dot is a table, or a list that has this index",
        fix="Set the whole value instead, or correct the key.",
    )


def _value(text: str, override: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        column = text.startswith("{") and "=" not in text  # of a template, as {question}: a table has an equals sign
        if text.startswith(("[", "{", '"', "'")) and not column:
            raise ConfigError(
                f"--set {override}: {error}",
                rule="a value that begins with a bracket or a quote must be TOML",
                fix="For the shell put the override in single quotes, and text inside it in double quotes.",
            ) from None
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def annotated_toml(config: type[Config], table: str) -> str:
    """The defaults of a config as a TOML table (a dot in its name makes a sub-table), each key under its explanation.

    Keys that are required, or unset by default, are commented out, and so is an example of every kind of
    table that a list may hold. So the text reads back as the defaults.
    """
    *parents, last = table.split(".")
    document: Any = tomlkit.document()
    holder = document
    for parent in parents:
        holder.add(parent, tomlkit.table(is_super_table=True))
        holder = holder[parent]
    holder.add(last, _table(config, {item.name: item.default for item in settings_of(config)}))
    return tomlkit.dumps(document).rstrip() + "\n"


def _table(config: type[Config], values: Mapping[str, Any]) -> Table:
    table = tomlkit.table()
    # TOML wants a table's own keys before its inner tables.
    for item in sorted(settings_of(config), key=lambda item: _is_table(item, values)):
        value = values.get(item.name)
        help_line = f"{item.help.rstrip('.')}. Required." if item.required and value is None else item.help
        for line in textwrap.wrap(help_line, _COMMENT_WIDTH):
            table.add(tomlkit.comment(line))
        if _is_table(item, values):
            table.add(item.name, _table(tables_in(item.type)[0], values[item.name]))
            continue
        if value is None:
            table.add(tomlkit.comment(f"{item.name} = {_stand_in(item)}"))
        else:
            table.add(item.name, _inline(value))
        for line in _held(tables_in(item.type)):
            table.add(tomlkit.comment(line))
        table.add(tomlkit.nl())
    return table


def _held(kinds: Sequence[type[Config]]) -> Iterator[str]:
    """The keys of the tables that a list may hold: those that all kinds share once, then each kind with its own."""
    keys = [list(settings_of(kind)) for kind in kinds]
    if not keys:
        return
    if len(keys) == 1:
        yield from ("  holding:", *map(_example, keys[0]))
        return
    shared = [key for key in keys[0] if all(key in others for others in keys)]
    if shared:
        yield from ("  each with:", *map(_example, shared))
    for own in keys:
        chosen_by = [key for key in own if get_origin(key.type) is Literal and len(get_args(key.type)) == 1]
        rest = [key for key in own if key not in shared and key not in chosen_by]
        yield from ("  one of:", *map(_example, chosen_by + rest))


def _example(key: Setting) -> str:
    shown = _stand_in(key) if key.default is None else _inline(key.default).as_string()
    return f"    {key.name} = {shown}   # {key.help}"


def _is_table(item: Setting, values: Mapping[str, Any]) -> bool:
    return isinstance(values.get(item.name), dict) and bool(tables_in(item.type))


def _stand_in(item: Setting) -> str:
    if get_origin(item.type) is Literal:
        return " | ".join(tomlkit.item(choice).as_string() for choice in get_args(item.type))
    return item.metavar


def _inline(value: Any) -> Any:
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update({key: _inline(inner) for key, inner in value.items()})
        return inline
    if isinstance(value, list):
        array = tomlkit.array()
        array.extend([_inline(inner) for inner in value])
        return array
    return tomlkit.item(value)
