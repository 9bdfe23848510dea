"""Recipes: the stages that a table names, the steps that a recipe's tables make of them, and how they are wired.

A stage is one command of the pipeline. Reading the table of stages imports no stage.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from groundup.core.errors import ConfigError

if TYPE_CHECKING:
    from groundup.core.config import Config


@dataclass(frozen=True, slots=True)
class Stage:
    """One command. Its module is named like it and holds `NameConfig`, `EXAMPLE` and `run(config, *, console=None)`.

    Attributes:
        name: the table of a recipe, and the command; a dot makes a sub-table and a sub-command.
        about: the summary that help prints.
        given_example: an example command line for a stage whose module declares none.
        directory: its output directory inside a run's directory; None for a command that is not part of a recipe.
        inputs: key of the config -> the stage whose output is its default in a run; of several, the first that the
            recipe has, otherwise the first whose output exists.
        shared: key of the config -> keys "STAGE.KEY" of the recipe; the first one present is the default.
        then: commands that make sense after this stage, with `{run}` for the run's directory, `{out}` for its output.
        returns_text: `run` also takes `on_text`, called with each piece of the one text that it returns.
        streams: `run` also takes `on_text` and `json_lines`: it prints through the first, with the second as one JSON
            object per line.
        many_ranks: `torchrun` may start it in many processes.
        package: the package of its module.
        filename: the module's name, if the stage's own is a Python keyword.
    """

    name: str
    about: str
    example_line: str = ""
    directory: str | None = None
    inputs: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    shared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    then: tuple[str, ...] = ()
    returns_text: bool = False
    streams: bool = False
    distributed: bool = False
    package: str = "groundup.commands"
    filename: str = ""

    @property
    def module(self) -> ModuleType:
        """The stage's module, imported on first use."""
        return importlib.import_module(f"{self.package}.{self.filename or self.name.replace('.', '_')}")

    @property
    def config(self) -> type[Config]:
        """The config class of the stage."""
        found: type[Config] = getattr(self.module, self.name.title().replace(".", "") + "Config")
        return found

    @property
    def example(self) -> str:
        """A command line that works."""
        return self.example_line or str(self.module.EXAMPLE)

    @property
    def command(self) -> str:
        """The words after `groundup`."""
        return self.name.replace(".", " ")


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a recipe, ready to run.

    Attributes:
        wired: keys of the config whose values come from the run, not from the recipe.
    """

    stage: Stage
    config: Config
    out: Path
    wired: frozenset[str]


def run_name(name: Any) -> str:
    """Return the name of a run, which must be valid as a directory name on every system.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        return name
    raise ConfigError(
        f"name = {name!r}",
        rule="a run's name is made of letters, digits, '-', '_' and '.'",
        fix='Write, for example, name = "my-run".',
    )


def recipe_steps(recipe: Mapping[str, Any], directory: Path, file: str, stages: Mapping[str, Stage]) -> list[Step]:
    """Check every table of a recipe and return its steps, in the order of the stages.

    Args:
        recipe: its tables, without its name; the version is checked before.
        directory: of the run.
        file: the recipe's name in error messages.
        stages: all stages, in their order.

    Raises:
        ConfigError: a key, table or value of the recipe is wrong.
    """
    from groundup.core.config import VERSION, load

    known = {name: stage for name, stage in stages.items() if stage.directory}
    tables = dict(_tables({key: value for key, value in recipe.items() if key != VERSION}, known, file))
    if not tables:
        rule, fix = (
            "a recipe has a table for each stage that shall run",
            f"Add, for example, [{next(iter(known))}].",
        )
        raise ConfigError(f"{file}: no stages", rule=rule, fix=fix)
    steps: list[Step] = []
    outputs: dict[str, Path] = {}
    for name, stage in known.items():
        if name in tables:
            wired: dict[str, Any] = {"out": str(directory / str(stage.directory))}
            for key, sources in stage.inputs.items():
                if earlier := _output_of(sources, outputs, known, directory):
                    wired[key] = str(earlier)
            wired |= dict(_shared(stage, tables))
            config: Any = load(stage.config, wired | tables[name], f"[{name}] in {file}")
            outputs[name] = config.out
            steps.append(Step(stage, config, config.out, frozenset(wired.keys() - tables[name].keys())))
    return steps


def starting_model(stage: str, table: Mapping[str, Any], directory: Path, stages: Mapping[str, Stage]) -> Path | None:
    """Return the model that a stage of a recipe starts from, if it is known before the run."""
    if "model" in table:
        return Path(str(table["model"]))
    return _output_of(stages[stage].inputs.get("model", ()), {}, stages, directory)


def next_commands(directory: Path, steps: Sequence[Step]) -> list[str]:
    """Return the command lines that make sense after a run."""
    from groundup.core.files import shell_quoted

    return [
        command.format(run=shell_quoted(directory), out=shell_quoted(step.out))
        for step in steps
        for command in step.stage.then
    ]


_REDACTED = (
    "# Logins and tokens were left out: REDACTED is in their place. To run this copy, write ${NAME} for it\n"
    "# and set the environment variable NAME; or run the recipe that you wrote.\n\n"
)


def save_recipe(path: Path, name: str, steps: Sequence[Step]) -> None:
    """Write a recipe with every default resolved, without secrets and without the paths that the run chose."""
    import tomlkit

    from groundup.core.config import RECIPE_VERSION, VERSION
    from groundup.core.files import atomic_file
    from groundup.core.redact import redacted_config

    document: dict[str, Any] = {VERSION: RECIPE_VERSION, "name": name}
    for step in steps:
        *parents, last = step.stage.name.split(".")
        holder = document
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = step.config.model_dump(mode="json", exclude_none=True, exclude=set(step.wired))
    kept = redacted_config(document)
    with atomic_file(path) as temporary:
        temporary.write_text((_REDACTED if kept != document else "") + tomlkit.dumps(kept), encoding="utf-8")


def _output_of(
    sources: str | tuple[str, ...], outputs: Mapping[str, Path], known: Mapping[str, Stage], directory: Path
) -> Path | None:
    """Return the output of the first of these stages that the recipe has, or that an earlier run left."""
    names = [sources] if isinstance(sources, str) else sources
    if (found := next((outputs[name] for name in names if name in outputs), None)) is not None:
        return found
    places = (directory / str(known[name].directory) for name in names)
    return next((place for place in places if place.exists()), None)


def _shared(stage: Stage, tables: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a stage whose values are in another stage's table."""
    for key, places in stage.shared.items():
        for table, name in (place.rsplit(".", 1) for place in places):
            if name in tables.get(table, {}):
                yield key, tables[table][name]
                break


def _tables(
    recipe: Mapping[str, Any], known: Collection[str], file: str, prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (stage, table) of each table of the recipe; a stage whose name has a dot is a table inside another."""
    from groundup.core.config import VERSION, unknown_name

    for key, value in recipe.items():
        name = prefix + key
        inside = [other for other in known if other.startswith(f"{name}.")]
        if name not in known and not inside:
            expected = [other.removeprefix(prefix) for other in known if other.startswith(prefix)]
            raise unknown_name(
                "table", key, ([] if prefix else ["name", VERSION]) + expected, where=file, prefix=prefix
            )
        if not isinstance(value, dict):
            rule, fix = f"{name} is a table", f"Write [{name}] on a line, and its keys below."
            raise ConfigError(f"{name} = {value!r} in {file}", rule=rule, fix=fix)
        if name in known:
            yield name, value
        else:
            yield from _tables(value, known, file, f"{name}.")
