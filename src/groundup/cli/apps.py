"""`groundup apps NAME`: each application as a command of its own, with its inputs as options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from groundup.cli.options import declared
from groundup.commands import STAGES
from groundup.core.recipe import Stage

if TYPE_CHECKING:
    from groundup.apps.declaration import App, Input

OPTION = "--apps"  # of the folder; it counts wherever it stands, since it decides which commands there are
RUN = STAGES["apps.run"]


def folder_in(arguments: Sequence[str]) -> Path | None:
    """The folder of a person's own applications that a command line names."""
    for place, argument in enumerate(arguments):
        if argument == OPTION and place + 1 < len(arguments):
            return Path(arguments[place + 1])
        if argument.startswith(f"{OPTION}="):
            return Path(argument.partition("=")[2])
    return None


def names(arguments: Sequence[str] = ()) -> dict[str, str]:
    """What each application is for."""
    from groundup.apps import Catalog

    return {name: found.app.about for name, found in Catalog(folder_in(arguments)).items()}


def require_valid_app(name: str, arguments: Sequence[str]) -> None:
    """See that no refused file is called so.

    Raises:
        ConfigError: one is; with what is wrong in it.
    """
    from groundup.apps import Catalog

    Catalog(folder_in(arguments)).require_valid(name)


def parameters(name: str, arguments: Sequence[str]) -> tuple[list[click.Parameter], Stage]:
    """The arguments and options of an application's command, and its stage with an example that suits it."""
    from groundup.apps import Catalog

    app = Catalog(folder_in(arguments)).named(name).app
    others = app.inputs[1:]
    kept = [each for each in declared(RUN.config) if each.name not in ("name", "input")]
    source = click.Argument(["input"], metavar="[FILE|TEXT|-]", required=False)
    example = f"groundup apps {name} {_example(app)} --model runs/quickstart"
    return [source, *map(_option, others), *kept], replace(RUN, about=app.about, example_line=example)


def taken(name: str, flags: dict[str, Any]) -> dict[str, Any]:
    """The flags of `apps.run` in place of those of an application's own command."""
    own = {key.removeprefix(_PREFIX): flags.pop(key) for key in list(flags) if key.startswith(_PREFIX)}
    return flags | {"name": name, "inputs": {key: value for key, value in own.items() if value is not None}}


_PREFIX = "input_of_app_"  # an input may be called like something of Python's


def _option(item: Input) -> click.Option:
    shown = ", ".join(item.default) if isinstance(item.default, tuple) else item.default
    about = item.about + (f"  [{shown}]" if shown not in (None, "") else "" if shown == "" else " (needed)")
    flag = f"--{item.name.replace('_', '-')}"
    if item.type == "choice":
        return click.Option([flag, _PREFIX + item.name], type=click.Choice(item.choices), help=about)
    kind: Any = int if item.type == "number" else str
    metavar = {"number": "INTEGER", "labels": "A,B,..."}.get(item.type, "TEXT")
    return click.Option([flag, _PREFIX + item.name], type=kind, metavar=metavar, help=about)


def _example(app: App) -> str:
    example = str(app.first.example)
    given = "FILE.txt" if app.first.type == "text" and (app.first.max or 0) > 10_000 else f'"{example}"'
    needed = [item for item in app.inputs[1:] if item.default is None]
    shown = [
        (item.name, ",".join(item.example) if isinstance(item.example, tuple) else item.example) for item in needed
    ]
    return " ".join([given, *(f'--{name.replace("_", "-")} "{value}"' for name, value in shown)])
