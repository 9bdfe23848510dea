"""Reading of TOML files, `a.b=VALUE` overrides, and the commented defaults that `groundup config STAGE` prints."""

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
from groundup.core.plural import pluralize

_COMMENT_WIDTH = 100


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file in UTF-8. A byte order mark at the start is ignored.

    Args:
        path: File to read.

    Returns:
        The tables and keys of the file.

    Raises:
        ConfigError: The file does not exist, cannot be read, or is not valid TOML. For invalid TOML, the message
            contains line and column.
    """
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", fix="Check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fix = 'Correct this line. Text needs quotes: key = "text".'
        raise ConfigError(f"{path}: {error}", rule="must be TOML in UTF-8", fix=fix) from None


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply `a.b=VALUE` overrides to a copy of nested tables.

    VALUE is written in TOML (`3`, `true`, `[1, 2]`, `{kind="folder", path="~/notes"}`). If VALUE does not start like a
    TOML value, it is a string. An empty VALUE removes the key, and so restores its default. A number in the key is a
    list index, as in `sources.0.path=x`.

    Args:
        values: Tables and keys to override.
        overrides: Overrides, applied in this order.

    Returns:
        A new mapping with the overridden values.

    Raises:
        ConfigError: An override has no "=", an empty key or an invalid value, or its key refers to a value that is not
            a table.
    """
    result = copy.deepcopy(dict(values))
    for override in overrides:
        dotted, equals, text = override.partition("=")
        parts = [part.strip() for part in dotted.split(".")]
        if not equals or not all(parts):
            wanted = dotted.strip() if all(parts) else "KEY"
            raise ConfigError(f"--set {override}", rule="must be KEY=VALUE", fix=f"Write --set {wanted}=VALUE.")
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
    found = f"a list of {pluralize(len(holder), 'item')}" if isinstance(holder, list) else repr(holder)
    raise ConfigError(
        f"--set {override}: {found} has no key {part}",
        rule="a dot must follow a table, or a list that has this index",
        fix="Set the whole value instead, or correct the key.",
    )


def _value(text: str, override: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        column = text.startswith("{") and "=" not in text  # a template such as {question}; inline tables contain "="
        if text.startswith(("[", "{", '"', "'")) and not column:
            raise ConfigError(
                f"--set {override}: {error}",
                rule="a value that starts with a bracket or a quote must be TOML",
                fix="In a shell, put the override in single quotes and the text inside it in double quotes.",
            ) from None
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def annotated_toml(config: type[Config], table: str) -> str:
    """Return the defaults of a config as TOML, with the help text of each key as a comment.

    Required keys and keys without a default are commented out, so the text is valid TOML that gives the defaults. If a
    list can contain tables (such as the sources of a corpus), the keys of these tables are described once at the end.

    Args:
        config: Config class whose defaults are written.
        table: Name of the table. If it contains a dot, the table is a sub-table.

    Returns:
        The commented TOML text.
    """
    *parents, last = table.split(".")
    document: Any = tomlkit.document()
    holder = document
    for parent in parents:
        holder.add(parent, tomlkit.table(is_super_table=True))
        holder = holder[parent]
    item_tables: dict[tuple[type[Config], ...], list[str]] = {}
    holder.add(last, _table(config, {item.name: item.default for item in settings_of(config)}, item_tables))
    text = tomlkit.dumps(document).rstrip() + "\n"
    for kinds, lists in item_tables.items():
        text += "\n" + "".join(f"# {line}".rstrip() + "\n" for line in _item_keys(kinds, lists))
    return text


def _table(
    config: type[Config], values: Mapping[str, Any], item_tables: dict[tuple[type[Config], ...], list[str]]
) -> Table:
    """Return a table whose keys have comments.

    Args:
        config: Config class of the table.
        values: Maps each key to its default.
        item_tables: Maps the config classes of list items to the keys that hold such lists. This function adds
            the lists of this table.
    """
    table = tomlkit.table()
    # In TOML, the keys of a table must precede its sub-tables.
    for item in sorted(settings_of(config), key=lambda item: _is_table(item, values)):
        value = values.get(item.name)
        help_line = f"{item.help.rstrip('.')}. Required." if item.required and value is None else item.help
        if _is_table(item, values):
            for line in textwrap.wrap(help_line, _COMMENT_WIDTH):
                table.add(tomlkit.comment(line))
            table.add(item.name, _table(tables_in(item.type)[0], values[item.name], item_tables))
            continue
        if kinds := tuple(tables_in(item.type)):
            item_tables.setdefault(kinds, []).append(item.name)
            help_line = f"{help_line.rstrip('.')}. The keys of a TABLE are at the end."
        for line in textwrap.wrap(help_line, _COMMENT_WIDTH):
            table.add(tomlkit.comment(line))
        if value is None:
            table.add(tomlkit.comment(f"{item.name} = {_placeholder(item)}"))
        else:
            table.add(item.name, _inline(value))
        table.add(tomlkit.nl())
    return table


def _item_keys(kinds: Sequence[type[Config]], lists: Sequence[str]) -> Iterator[str]:
    """Yield the description of the tables in lists: first the keys that all kinds share, then the keys of each kind."""
    keys = [list(settings_of(kind)) for kind in kinds]
    name = " or ".join(lists)
    if len(keys) == 1:
        yield from (f"Keys of a TABLE in {name}:", *map(_example, keys[0]))
        return
    shared = [key for key in keys[0] if all(key in others for others in keys)]
    if shared:
        yield from (f"Keys of every TABLE in {name}:", *map(_example, shared))
    yield f"Kinds of TABLE in {name}, with the keys of each kind:"
    for own in keys:
        selectors = [key for key in own if get_origin(key.type) is Literal and len(get_args(key.type)) == 1]
        rest = [key for key in own if key not in shared and key not in selectors]
        yield from ("", *map(_example, selectors + rest))


def _example(key: Setting) -> str:
    shown = _placeholder(key) if key.default is None else _inline(key.default).as_string()
    return f"    {key.name} = {shown}   # {key.help}"


def _is_table(item: Setting, values: Mapping[str, Any]) -> bool:
    return isinstance(values.get(item.name), dict) and bool(tables_in(item.type))


def _placeholder(item: Setting) -> str:
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
