"""Arguments and options of the commands. Some are derived from the configs, and some are shared by all commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

if TYPE_CHECKING:
    from groundup.core.config import Config, Setting


class Argument(click.Argument):
    """A positional argument with a help text. Positional arguments of click have no help text.

    Args:
        name: Name of the parameter in the callback of the command.
        shown: Name that the help shows, such as MODEL.
        help: Description of the argument.
        default_shown: Default value that the help shows.
        needed: Whether a value is required. click does not check this, because a recipe may contain the value.
        many: Whether the argument accepts several values.
        **options: Other keyword arguments of `click.Argument`.
    """

    def __init__(
        self,
        name: str,
        shown: str,
        help: str,
        *,
        default_shown: Any = None,
        needed: bool = True,
        many: bool = False,
        **options: Any,
    ) -> None:
        metavar = (shown if needed else f"[{shown}]") + ("..." if many else "")
        super().__init__([name], metavar=metavar, required=False, nargs=-1 if many else 1, **options)
        self.meaning = _with_default(help, default_shown, required=needed)


def declared(config: type[Config]) -> list[click.Parameter]:
    """Return the positional arguments and options that a config declares.

    click does not treat any of them as required, because a value may also come from `--config` or `--set`. The config
    reports missing values. The value of an omitted parameter is `None` or `()`.

    Args:
        config: Config class of the command.
    """
    from groundup.core.config import settings_of

    parameters: list[click.Parameter] = []
    for item in settings_of(config):
        if item.positional:
            many = get_origin(item.type) is tuple
            shown = item.name.upper().removesuffix("S" if many else "")
            default = None if many else item.default
            parameters.append(
                Argument(item.name, shown, item.help, default_shown=default, needed=item.required, many=many)
            )
        elif item.flag:
            parameters.append(_option(item))
    return parameters


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the values that were given on the command line.

    Args:
        values: Maps each parameter to its value. The value of an omitted parameter is `None` or `()`.
    """
    return {key: value for key, value in values.items() if value not in (None, ())}


def _option(item: Setting) -> click.Option:
    many = get_origin(item.type) in (list, tuple)
    help_line = _with_default(item.help, item.default, required=item.required) + (" (repeatable)" if many else "")
    if item.type is bool:
        both = f"{item.option}/--no-{item.option.removeprefix('--')}"
        return click.Option([both, item.name], default=None, help=help_line)
    each = get_args(item.type)[0] if many else item.type
    kind: Any = each if each in (int, float) else str  # the config converts strings to paths
    # If a recipe contains a list of tables, the command line expects a file with these tables.
    metavar: str | None = item.metavar.split("|")[0].strip("[]").removesuffix(", ...").replace("TABLE", "FILE")
    if get_origin(each) is Literal:
        kind, metavar = click.Choice([str(choice) for choice in get_args(each)]), None
    return click.Option([item.option, item.name], type=kind, multiple=many, metavar=metavar, help=help_line)


def _with_default(help_line: str, default: Any, *, required: bool) -> str:
    if required:
        return f"{help_line} [required]"
    if isinstance(default, list):
        default = ", ".join(map(str, default))
    return help_line if default in (None, False, "") else f"{help_line} [{default}]"


_COMMON: Mapping[str, tuple[list[str], dict[str, Any]]] = {
    "config": (["--config", "config_file"], {"metavar": "FILE.toml", "help": "Read settings from a recipe"}),
    "set": (
        ["--set", "overrides"],
        {"metavar": "KEY=VALUE", "multiple": True, "help": "Set any setting (repeatable)"},
    ),
    "output": (["--output"], {"metavar": "FILE", "help": "Write the result to a file"}),
    "quiet": (["--quiet"], {"is_flag": True, "help": "Show only warnings and errors"}),
    "json": (["--json", "json_wanted"], {"is_flag": True, "help": "Print the result as JSON"}),
}


def common(*names: str) -> list[click.Parameter]:
    """Return options that several commands share.

    Args:
        *names: Names of the options: "config", "set", "output", "quiet" or "json".
    """
    return [click.Option(_COMMON[name][0], **_COMMON[name][1]) for name in names]
