"""From a mapping to a config; what pydantic says of a wrong key becomes an error that a person can act on."""

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

_CLOSE = 0.7  # of difflib's ratio
_BEGINNING = 4  # letters
# By pydantic's name for it, what must hold, in the words of a person who writes TOML.
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
    "string_pattern_mismatch": "must be written like this regular expression: {pattern}",
}


def load(config: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Check `values` (as TOML gives them) against a config class.

    Types are strict: a string is no number and a number no string; an integer is a fine float. Strings become
    paths and lists become tuples where the class says so.

    Args:
        where: what the values belong to, named in errors: "[pretrain] in quickstart.toml".

    Raises:
        ConfigError: names the first wrong key, its value and the rule; for an unknown key the nearest one.
    """
    try:
        return config.model_validate(dict(values), strict=True)
    except ValidationError as error:
        # A mistyped key often shows twice, as unknown and as missing: the unknown one is the cause.
        problems = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        raise _explain(config, problems[0], where, more=len(problems) - 1) from None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` is most likely a slip of, or None if none is close.

    Close is a ratio of `difflib` of 0.7 (of 3,000 common words 1 to 3 % are close to some command or setting, of words
    with one slip 95 to 100 %), two neighboring letters swapped, or a beginning of four letters and more. Letter case
    and "-" for "_" do not count.
    """
    given = _plain(word)
    candidates = {_plain(each): each for each in known}
    swapped = {given[:n] + given[n : n + 2][::-1] + given[n + 2 :] for n in range(len(given))}
    if found := next((each for each in candidates if each in swapped), None):
        return candidates[found]
    if matches := difflib.get_close_matches(given, candidates, n=1, cutoff=_CLOSE):
        return candidates[matches[0]]
    longer = [each for each in candidates if len(given) >= _BEGINNING and each.startswith(given)]
    return candidates[min(longer, key=len)] if longer else None


def _plain(word: str) -> str:
    return word.casefold().replace("-", "_")


def unknown_key(label: str, word: str, known: Sequence[str], kind: str = "key") -> ConfigError:
    """The error for a key, table or stage that does not exist.

    Args:
        label: the word with its surroundings, as shown.
        known: the words that do exist; the nearest one is proposed.
    """
    match = nearest(word, known)
    instead = "Leave it out, or use" if kind == "key" else "Use"
    fix = f"Did you mean {match}?" if match else f"{instead} one of: {', '.join(known)}."
    return ConfigError(f"{label}: unknown {kind}", rule=f"a {kind} must be a known one", fix=fix)


def _explain(config: type[Config], problem: ErrorDetails, where: str, more: int) -> ConfigError:
    key, name, holder, expected = _locate(config, problem["loc"])
    label = f"{where}: {key}" if where else key
    kind = problem["type"]
    declared = {item.name: item for item in settings_of(holder)} if holder else {}
    rest = f" ({more} more to mend after that.)" if more else ""
    if kind == "extra_forbidden":
        if holder and (new := holder.renamed.get(name)):
            return ConfigError(
                f"{label}: unknown key", rule="an earlier release had this key", fix=f"Write {new}.{rest}"
            )
        if prefix := _needless_prefix(name, problem["input"], declared):
            rule = "the keys of this command or table are written without its own name"
            return ConfigError(f"{label}: unknown key", rule=rule, fix=f'Leave out "{prefix}." in front.')
        return unknown_key(label, name, list(declared))
    if kind == "missing" and name in declared:
        item = declared[name]
        return ConfigError(f"{label} is missing", rule=f"needed: {item.help}", fix=_ways(item) + rest)
    if kind.startswith("union_tag"):
        return _explain_tag(label, problem, expected, rest)
    rule = _rule(problem)
    if not key:  # a rule between several keys
        return ConfigError(where or config.__name__, rule=rule, fix=f"Change one of these keys.{rest}")
    help_line = f" It is: {declared[name].help.rstrip('.')}." if name in declared else ""
    fix = f"Give {key} another value.{help_line}{rest}"
    return ConfigError(f"{label} = {_shown(problem['input'])}", rule=rule, fix=fix)


def _rule(problem: ErrorDetails) -> str:
    own = _RULES.get(problem["type"])
    if own is not None:
        return own.format(**problem.get("ctx", {}))
    return problem["msg"].removeprefix("Value error, ").replace("Input should", "must")


def _needless_prefix(name: str, value: Any, declared: Collection[str]) -> str | None:
    """The names of tables in front of keys that are known without them: "pretrain" of `pretrain.minutes`."""
    if not isinstance(value, Mapping) or not value:
        return None
    if all(key in declared for key in value):
        return name
    key, below = next(iter(value.items()))
    return _needless_prefix(f"{name}.{key}", below, declared)


def _explain_tag(label: str, problem: ErrorDetails, expected: Any, rest: str) -> ConfigError:
    tag = str(problem["ctx"]["discriminator"]).strip("'")
    tags = [item for table in tables_in(expected) for item in settings_of(table) if item.name == tag]
    choices = [str(choice) for item in tags for choice in get_args(item.type)]
    given = problem["input"].get(tag) if isinstance(problem["input"], Mapping) else None
    value = f"{tag} is missing" if given is None else f"{tag} = {_shown(given)}"
    match = nearest(str(given), choices)
    fix = f'Did you mean {tag} = "{match}"?' if match else f'Write {tag} = "{choices[0]}", for example.'
    return ConfigError(f"{label}: {value}", rule=f"{tag} is one of {', '.join(choices)}", fix=fix + rest)


def _ways(item: Setting) -> str:
    written = f"rite {item.name} = {item.metavar} in the recipe"
    if item.positional:
        return f"Give it on the command line: {item.name.upper()}."
    return f"Give {item.option}, or w{written}." if item.flag else f"W{written}."


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _locate(config: type[Config], loc: Sequence[str | int]) -> tuple[str, str, type[Config] | None, Any]:
    """Follow pydantic's location: the key as a person writes it, its last part, the class that holds it, its type."""
    key = name = ""
    holder: type[Config] | None = None
    kind: Any = config
    for part in loc:
        if isinstance(part, int):
            key, kind, holder = f"{key}[{part}]", item_type(unwrap(kind)[0]), None
            continue
        if get_origin(unwrap(kind)[0]) in (Union, UnionType):  # pydantic's step into one member; nobody wrote it
            kind = _member(unwrap(kind)[0], part)
            continue
        tables = tables_in(kind)
        key, name = f"{key}.{part}" if key else part, part
        holder = tables[0] if len(tables) == 1 else None
        field = holder.model_fields.get(part) if holder else None
        kind = field.annotation if field is not None else item_type(unwrap(kind)[0])
    return key, name, holder, kind


def _member(union: Any, step: str) -> Any:
    """The member of a union that pydantic names in a location: tables by tag or class, of others only lists go on."""
    members = [unwrap(member)[0] for member in get_args(union)]
    tables = (table for member in members for table in tables_in(member) if table is member and step in _tags(table))
    lists = (member for member in members if get_origin(member) is list)
    return next(tables, next(lists, Any))


def _tags(table: type[Config]) -> set[str]:
    literals = [item.type for item in settings_of(table) if get_origin(item.type) is Literal]
    return {table.__name__, *(choice for literal in literals for choice in get_args(literal))}
