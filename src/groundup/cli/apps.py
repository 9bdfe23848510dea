"""`groundup apps NAME`: a command for each application, which has an option for each input of the application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from groundup.cli.options import Argument, declared
from groundup.commands import STAGES
from groundup.core.recipe import Stage

if TYPE_CHECKING:
    from groundup.apps.declaration import App, Input

OPTION = "--apps"  # read before parsing, because the set of commands depends on it
RUN = STAGES["apps.run"]


def apps_directory(arguments: Sequence[str]) -> Path | None:
    """Return the value of `--apps` on a command line, or None if the option is not given.

    Args:
        arguments: Command line after `groundup apps`.
    """
    for place, argument in enumerate(arguments):
        if argument == OPTION and place + 1 < len(arguments):
            return Path(arguments[place + 1])
        if argument.startswith(f"{OPTION}="):
            return Path(argument.partition("=")[2])
    return None


def descriptions(arguments: Sequence[str] = ()) -> dict[str, str]:
    """Return the descriptions of all applications, keyed by name.

    Args:
        arguments: Command line after `groundup apps`.
    """
    from groundup.apps import Catalog

    return {name: found.app.about for name, found in Catalog(apps_directory(arguments)).items()}


def require_valid_app(name: str, arguments: Sequence[str]) -> None:
    """Raise an error if the file of an application is invalid.

    Args:
        name: Name of the application.
        arguments: Command line after `groundup apps`.

    Raises:
        ConfigError: The file that defines the application is invalid.
    """
    from groundup.apps import Catalog

    Catalog(apps_directory(arguments)).require_valid(name)


def parameters(name: str, arguments: Sequence[str]) -> tuple[list[click.Parameter], Stage]:
    """Return the parameters of an application's command, and a stage that describes the command with an example.

    Args:
        name: Name of the application.
        arguments: Command line after `groundup apps`.
    """
    from groundup.apps import Catalog

    app = Catalog(apps_directory(arguments)).named(name).app
    others = app.inputs[1:]
    kept = [each for each in declared(RUN.config) if each.name not in ("name", "input")]
    about = f"{app.first.about[:1].upper()}{app.first.about[1:]}; - reads standard input"
    source = Argument("input", "FILE|TEXT|-", about, needed=False)
    example = f"groundup apps {name} {_example(app)} --model runs/quickstart"
    return [source, *map(_option, others), *kept], replace(RUN, about=app.about, example_line=example)


def run_flags(name: str, flags: dict[str, Any]) -> dict[str, Any]:
    """Convert the options of an application's command to the options of `groundup apps run`.

    Args:
        name: Name of the application.
        flags: Maps each option to its value.
    """
    own = {key.removeprefix(_PREFIX): flags.pop(key) for key in list(flags) if key.startswith(_PREFIX)}
    return flags | {"name": name, "inputs": {key: value for key, value in own.items() if value is not None}}


_PREFIX = "input_of_app_"  # avoids Python keywords, which inputs may have as names


def _option(item: Input) -> click.Option:
    shown = ", ".join(item.default) if isinstance(item.default, tuple) else item.default
    default = " [required]" if shown is None else "" if shown == "" else f" [{shown}]"
    about = f"{item.about[:1].upper()}{item.about[1:]}{default}"
    flag = f"--{item.name.replace('_', '-')}"
    if item.type == "choice":
        return click.Option([flag, _PREFIX + item.name], type=click.Choice(item.choices), help=about)
    kind: Any = int if item.type == "number" else str
    metavar = {"number": "INTEGER", "labels": "A,B,..."}.get(item.type, "TEXT")
    return click.Option([flag, _PREFIX + item.name], type=kind, metavar=metavar, help=about)


def _example(app: App) -> str:
    example = str(app.first.example)
    given = "FILE.txt" if app.first.type == "text" and (app.first.max or 0) > 10_000 else f'"{example}"'
    required = [item for item in app.inputs[1:] if item.default is None]
    shown = [
        (item.name, ",".join(item.example) if isinstance(item.example, tuple) else item.example) for item in required
    ]
    return " ".join([given, *(f'--{name.replace("_", "-")} "{value}"' for name, value in shown)])
