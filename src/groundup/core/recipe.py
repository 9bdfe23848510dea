"""Recipes: definition of stages, validation of recipes, and the connection of stages by their inputs and outputs.

A stage is one command of the pipeline. The module of a stage is imported when it is first used.
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
    """A command of groundup. Its module defines a config class, `EXAMPLE` and `run(config, *, console=None)`.

    Attributes:
        name: Name of the stage, of its module and of its table in a recipe. A dot separates the table from a sub-table,
            and the command from a sub-command.
        about: One-line summary for the help, without a period.
        example_line: Example of a command line, if the module does not define `EXAMPLE`.
        directory: Name of the output directory inside the directory of a run. None if recipes cannot contain this
            stage.
        inputs: Maps a key of the config to the stage, or stages, whose output is the default value of this key in a
            run. If several stages are listed, the first stage that the recipe contains is used. If the recipe contains
            none of them, the first existing output is used. "STAGE/FILE" stands for a file in the output, which is
            used only if the recipe contains the stage.
        shared: Maps a key of the config to keys "STAGE.KEY" of the recipe. The first of these keys that the recipe
            contains gives the default value.
        then: Commands to suggest after this stage. `{run}` stands for the directory of the run, and `{out}` for the
            output directory.
        returns_text: Whether the `run` function has a parameter `on_text`, which is called with pieces of the returned
            text.
        streams: Whether the `run` function has a parameter `on_text` for its output and a parameter `json_lines`, which
            selects one JSON object per line.
        distributed: Whether `torchrun` may start the command in several processes.
        package: Package that contains the module.
        filename: Name of the module, if the name of the stage is a Python keyword.
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
        """Module that implements the stage. It is imported on first use."""
        return importlib.import_module(f"{self.package}.{self.filename or re.sub('[.-]', '_', self.name)}")

    @property
    def config(self) -> type[Config]:
        """Config class of the stage."""
        found: type[Config] = getattr(self.module, re.sub("[.-]", "", self.name.title()) + "Config")
        return found

    @property
    def example(self) -> str:
        """Example of a command line for the help."""
        return self.example_line or str(self.module.EXAMPLE)

    @property
    def command(self) -> str:
        """Words after `groundup` on the command line, such as "finetune instruct"."""
        return self.name.replace(".", " ")


@dataclass(frozen=True, slots=True)
class Step:
    """A stage of a recipe with its config.

    Attributes:
        stage: Stage to run.
        config: Validated config of the stage.
        out: Output directory of the stage.
        wired: Keys of the config whose values come from the run and not from the recipe.
    """

    stage: Stage
    config: Config
    out: Path
    wired: frozenset[str]


def run_name(name: Any) -> str:
    """Validate the name of a run. It must be a valid directory name on all operating systems.

    Args:
        name: Name to validate.

    Returns:
        The unchanged name.

    Raises:
        ConfigError: The name is invalid.
    """
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        return name
    raise ConfigError(
        f"name = {name!r}",
        rule="a name has only letters, digits, '-', '_' and '.', and does not start with '-' or '.'",
        fix='Write name = "my-run", for example.',
    )


def recipe_steps(recipe: Mapping[str, Any], directory: Path, file: str, stages: Mapping[str, Stage]) -> list[Step]:
    """Validate a recipe and return its steps, in the order of the stages.

    Args:
        recipe: Tables of the recipe, without the key `name`.
        directory: Directory of the run.
        file: File name of the recipe, for error messages.
        stages: Maps the name of each stage to the stage, in the order of the pipeline.

    Raises:
        ConfigError: A table, key or value of the recipe is invalid.
    """
    from groundup.core.config import load, without_version

    known = {name: stage for name, stage in stages.items() if stage.directory}
    tables = dict(_tables(without_version(recipe, file), known, file))
    if not tables:
        raise ConfigError(f"{file}: no stages", fix=f"Add the table of a stage, such as [{next(iter(known))}].")
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


def stage_table(values: Any, stage: str) -> dict[str, Any] | None:
    """Return the table of a stage in a recipe, or None if the recipe does not contain the stage."""
    for part in stage.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return dict(values) if isinstance(values, dict) else None


def next_commands(directory: Path, steps: Sequence[Step]) -> list[str]:
    """Return the commands to suggest after a finished run.

    Args:
        directory: Directory of the run.
        steps: Steps of the run.
    """
    from groundup.core.files import shell_quoted

    return [
        command.format(run=shell_quoted(directory), out=shell_quoted(step.out))
        for step in steps
        for command in step.stage.then
    ]


_REDACTED = (
    "# Logins and tokens were replaced by REDACTED. To run this copy, replace REDACTED by ${NAME} and set the\n"
    "# environment variable NAME. Or run the original recipe.\n\n"
)


def save_recipe(path: Path, name: str, steps: Sequence[Step]) -> None:
    """Write a recipe that contains all defaults, but no secrets and no paths that the run sets.

    Args:
        path: File to write.
        name: Name of the run.
        steps: Steps of the run.
    """
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
    """Return the output of the first of these stages that the recipe contains, otherwise the first existing output."""
    names = [sources] if isinstance(sources, str) else sources
    for name, _, file in (name.partition("/") for name in names):
        if name in outputs:
            return outputs[name] / file
    directories = (directory / str(known[name].directory) for name in names if "/" not in name)
    return next((path for path in directories if path.exists()), None)


def _shared(stage: Stage, tables: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a stage that take their value from the table of another stage."""
    for key, directories in stage.shared.items():
        for table, name in (place.rsplit(".", 1) for place in directories):
            if name in tables.get(table, {}):
                yield key, tables[table][name]
                break


def _tables(
    recipe: Mapping[str, Any], known: Collection[str], file: str, prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and table of each stage in the recipe. A dot in a name means a sub-table."""
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
            fix = f"Write [{name}] on a line, and its keys below."
            raise ConfigError(f"{name} = {value!r} in {file}", rule=f"{name} must be a table", fix=fix)
        if name in known:
            yield name, value
        else:
            yield from _tables(value, known, file, f"{name}.")
