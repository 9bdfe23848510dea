"""Arguments and options: those that a config declares, and those that all commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

if TYPE_CHECKING:
    from groundup.core.config import Config, Setting


def declared(config: type[Config]) -> list[click.Parameter]:
    """A config's positional arguments and flags.

    None is required here: a value may also come from `--config` or `--set`, and the config itself says what
    is missing. One that was not given arrives as `None` or `()`.
    """
    from groundup.core.config import settings_of

    parameters: list[click.Parameter] = []
    for item in settings_of(config):
        if item.positional:
            metavar, many = item.name.upper(), get_origin(item.type) is tuple
            if many:
                metavar = f"[{metavar.removesuffix('S')} ...]"
            parameters.append(click.Argument([item.name], metavar=metavar, required=False, nargs=-1 if many else 1))
        elif item.flag:
            parameters.append(_option(item))
    return parameters


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the command line really gave."""
    return {key: value for key, value in values.items() if value not in (None, ())}


def _option(item: Setting) -> click.Option:
    many = get_origin(item.type) in (list, tuple)
    plain = item.default in (None, False, "", [])
    help_line = item.help + ("" if plain else f"  [{item.default}]") + (" (repeatable)" if many else "")
    if item.type is bool:
        both = f"{item.option}/--no-{item.option.removeprefix('--')}"
        return click.Option([both, item.name], default=None, help=help_line)
    each = get_args(item.type)[0] if many else item.type
    kind: Any = each if each in (int, float) else str  # the config makes paths of text
    # A recipe may give tables where the command line gives the file that holds them.
    metavar: str | None = item.metavar.split("|")[0].strip("[]").removesuffix(", ...").replace("TABLE", "FILE")
    if get_origin(item.type) is Literal:
        kind, metavar = click.Choice([str(choice) for choice in get_args(item.type)]), None
    return click.Option([item.option, item.name], type=kind, multiple=many, metavar=metavar, help=help_line)


_COMMON: Mapping[str, tuple[list[str], dict[str, Any]]] = {
    "config": (["--config", "config_file"], {"metavar": "FILE.toml", "help": "take settings from a recipe"}),
    "set": (
        ["--set", "overrides"],
        {"metavar": "KEY=VALUE", "multiple": True, "help": "any setting (repeatable)"},
    ),
    "output": (["--output"], {"metavar": "FILE", "help": "write the result to a file"}),
    "quiet": (["--quiet"], {"is_flag": True, "help": "show warnings and errors only"}),
    "json": (["--json", "json_wanted"], {"is_flag": True, "help": "print the result as JSON"}),
}


def common(*names: str) -> list[click.Parameter]:
    """The options called so that every command has alike."""
    return [click.Option(_COMMON[name][0], **_COMMON[name][1]) for name in names]
