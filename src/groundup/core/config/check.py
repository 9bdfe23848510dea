"""Validation of configs. The error messages use the terms of TOML instead of the terms of pydantic."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from groundup.core.config.declare import Config, Setting, item_type, settings_of, tables_in, unwrap
from groundup.core.errors import ConfigError

C = TypeVar("C", bound=Config)

_MIN_RATIO = 0.7  # minimum similarity ratio of difflib
_MIN_PREFIX = 4  # characters
# Maps each of pydantic's error types to a rule in the terms of TOML.
_RULES: Mapping[str, str] = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": 'must be text, in quotes: "..."',
    "is_instance_of": 'must be a path, in quotes: "..."; the current directory is "."',
    "list_type": "must be a list: [...]",
    "tuple_type": "must be a list: [...]",
    "dict_type": "must be a table: {{...}}",
    "model_type": "must be a table: {{...}}",
    "string_pattern_mismatch": "must match the regular expression {pattern}",
}


def load(config: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Validate values that were read from TOML, and return the config.

    Types are strict, so a quoted number is not accepted as a number. An integer is accepted as a float. If the config
    class declares a path or a tuple, a string is converted to a path and a list to a tuple.

    Args:
        config: Config class.
        values: Maps keys to values.
        where: Table and file that contain the values, for error messages, such as "[pretrain] in quickstart.toml".

    Returns:
        The validated config.

    Raises:
        ConfigError: A key or value is invalid. The message names the first such key and the known key that is closest
            to it.
    """
    try:
        return config.model_validate(dict(values), strict=True)
    except ValidationError as error:
        # A misspelled required key is both unknown and missing. Only the unknown key is reported.
        problems = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        raise _explain(config, problems[0], where, more=len(problems) - 1) from None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is closest to `word`, or None if no known word is close.

    A known word is close in three cases: its `difflib` ratio is at least 0.7, two adjacent letters are swapped, or it
    starts with `word` and `word` has at least four letters. Case, and "-" versus "_", are ignored. Measured on 3,000
    common words, 1 to 3 % are close to a command or setting. Of words with one typo, 95 to 100 % are close to the
    correct word.

    Args:
        word: Word that the user gave.
        known: Valid words to choose from.
    """
    given = _plain(word)
    candidates = {_plain(each): each for each in known}
    swapped = {given[:n] + given[n : n + 2][::-1] + given[n + 2 :] for n in range(len(given))}
    if found := next((each for each in candidates if each in swapped), None):
        return candidates[found]
    if matches := difflib.get_close_matches(given, candidates, n=1, cutoff=_MIN_RATIO):
        return candidates[matches[0]]
    longer = [each for each in candidates if len(given) >= _MIN_PREFIX and each.startswith(given)]
    return candidates[min(longer, key=len)] if longer else None


def _plain(word: str) -> str:
    return word.casefold().replace("-", "_")


def unknown_name(kind: str, name: str, known: Sequence[str], *, where: str = "", prefix: str = "") -> ConfigError:
    """Return the error for a name that does not exist, such as "unknown command 'rnu'; did you mean 'run'?".

    Args:
        kind: Kind of thing that the name refers to, such as "setting", "table" or "command".
        name: Name that the user gave.
        known: Valid names. If a valid name is close to `name`, the error suggests it.
        where: Table and file that contain the name.
        prefix: Text in front of the name, such as "sources[0].". It is also added to the suggested name.
    """
    match = nearest(name, known)
    value = f"unknown {kind} '{prefix}{name}'" + (f" in {where}" if where else "")
    if match:
        return ConfigError(f"{value}; did you mean '{prefix}{match}'?", fix="")
    instead = "Remove it, or use" if kind == "setting" else "Use"
    return ConfigError(value, fix=f"{instead} one of: {', '.join(known)}.")


def _explain(config: type[Config], problem: ErrorDetails, where: str, more: int) -> ConfigError:
    key, name, holder, expected = _locate(config, problem["loc"])
    label = f"{where}: {key}" if where else key
    kind = problem["type"]
    declared = {item.name: item for item in settings_of(holder)} if holder else {}
    rest = f" ({more} more {'error' if more == 1 else 'errors'} after this one.)" if more else ""
    if kind == "extra_forbidden":
        if prefixes := _redundant_prefix(name, problem["input"], declared):
            inside = f" in {where}" if where else ""
            return ConfigError(
                f"unknown setting '{key}'{inside}",
                rule="settings are written without the name of their table",
                fix=f'Remove "{prefixes}." from the start.',
            )
        return unknown_name("setting", name, list(declared), where=where, prefix=key.removesuffix(name))
    if kind == "missing" and name in declared:
        item = declared[name]
        return ConfigError(f"{label} is missing ({item.help.rstrip('.')})", fix=_how_to_set(item) + rest)
    if kind.startswith("union_tag"):
        return _explain_tag(label, problem, expected, rest)
    rule = _rule(problem)
    if not key:  # a validator that compares several keys failed
        return ConfigError(where or config.__name__, rule=rule, fix=f"Change one of these settings.{rest}")
    help_line = f" {name}: {declared[name].help.rstrip('.')}." if name in declared else ""
    fix = f"Give {key} another value.{help_line}{rest}"
    return ConfigError(f"{label} = {_shown(problem['input'])}", rule=rule, fix=fix)


def _rule(problem: ErrorDetails) -> str:
    own = _RULES.get(problem["type"])
    if own is not None:
        return own.format(**problem.get("ctx", {}))
    return problem["msg"].removeprefix("Value error, ").replace("Input should", "must")


def _redundant_prefix(name: str, value: Any, declared: Collection[str]) -> str | None:
    """Return the table names in front of a valid key, such as "pretrain" in `pretrain.minutes`, or None."""
    if not isinstance(value, Mapping) or not value:
        return None
    if all(key in declared for key in value):
        return name
    key, below = next(iter(value.items()))
    return _redundant_prefix(f"{name}.{key}", below, declared)


def _explain_tag(label: str, problem: ErrorDetails, expected: Any, rest: str) -> ConfigError:
    tag = str(problem["ctx"]["discriminator"]).strip("'")
    tags = [item for table in tables_in(expected) for item in settings_of(table) if item.name == tag]
    choices = [str(choice) for item in tags for choice in get_args(item.type)]
    given = problem["input"].get(tag) if isinstance(problem["input"], Mapping) else None
    value = f"{tag} is missing" if given is None else f"{tag} = {_shown(given)}"
    match = nearest(str(given), choices)
    fix = f'Did you mean {tag} = "{match}"?' if match else f'Write {tag} = "{choices[0]}", for example.'
    return ConfigError(f"{label}: {value}", rule=f"{tag} must be one of {', '.join(choices)}", fix=fix + rest)


def _how_to_set(item: Setting) -> str:
    written = f"rite {item.name} = {item.metavar} in the recipe"
    if item.positional:
        return f"Give it on the command line: {item.name.upper()}."
    return f"Give {item.option}, or w{written}." if item.flag else f"W{written}."


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _locate(config: type[Config], loc: Sequence[str | int]) -> tuple[str, str, type[Config] | None, Any]:
    """Convert pydantic's location of an error to a key of the config.

    Returns:
        The dotted key, the last part of this key, the config class that declares it (None outside a table), and its
        type.
    """
    key = name = ""
    holder: type[Config] | None = None
    kind: Any = config
    for part in loc:
        if isinstance(part, int):
            key, kind, holder = f"{key}[{part}]", item_type(unwrap(kind)[0]), None
            continue
        if get_origin(unwrap(kind)[0]) in (Union, UnionType):  # this part names a union member, so it is not a TOML key
            kind = _member(unwrap(kind)[0], part)
            continue
        tables = tables_in(kind)
        key, name = f"{key}.{part}" if key else part, part
        holder = tables[0] if len(tables) == 1 else None
        field = holder.model_fields.get(part) if holder else None
        kind = field.annotation if field is not None else item_type(unwrap(kind)[0])
    return key, name, holder, kind


def _member(union: Any, step: str) -> Any:
    """Return the member of a union type that a part of pydantic's error location refers to.

    A table is identified by its tag or its class name. Otherwise, the location refers to a list.
    """
    members = [unwrap(member)[0] for member in get_args(union)]
    tables = (table for member in members for table in tables_in(member) if table is member and step in _tags(table))
    lists = (member for member in members if get_origin(member) is list)
    return next(tables, next(lists, Any))


def _tags(table: type[Config]) -> set[str]:
    literals = [item.type for item in settings_of(table) if get_origin(item.type) is Literal]
    return {table.__name__, *(choice for literal in literals for choice in get_args(literal))}
