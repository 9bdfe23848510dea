"""`groundup run`: all stages of a recipe, in order, in one directory; what is done is skipped."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from groundup.commands import STAGES, Stage
from groundup.commands._recipe import require_absolute_rates
from groundup.core import artifact
from groundup.core.config import (
    RECIPE_VERSION,
    VERSION,
    Config,
    apply_overrides,
    load,
    read_toml,
    setting,
    unknown_key,
)
from groundup.core.console import Console, format_duration
from groundup.core.errors import ConfigError, GroundupError
from groundup.core.files import atomic_file, shell_quoted
from groundup.core.locks import exclusive
from groundup.core.redact import redacted_config
from groundup.recipes import find_recipe


class RunConfig(Config):
    """A recipe and where its output goes."""

    recipe: Path = setting(help="a TOML file with a table for each stage, or a bundled recipe's name", positional=True)
    runs: Path = setting(Path("runs"), help="directory that holds the runs", flag=True)
    overrides: tuple[str, ...] = setting((), help="changes to the recipe, each a.b=VALUE")


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its directory, and the artifact of each stage by name."""

    name: str
    directory: Path
    artifacts: Mapping[str, artifact.Artifact]


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a recipe, ready to run."""

    stage: Stage
    config: Config
    out: Path
    chosen: frozenset[str]  # the keys that the run wired, not the recipe


def run(config: RunConfig, *, console: Console | None = None, stages: Mapping[str, Stage] = STAGES) -> Run:
    """Run a recipe in `RUNS/NAME/`; NAME is the recipe's `name`, or else its file name.
    A recipe is a file, or the name of a bundled one (`groundup.recipes`).

    All tables are checked before the first stage starts. A stage that has finished with the same config and
    inputs is skipped, one that was cut off goes on.

    Args:
        stages: the stages there are, in their order.

    Raises:
        ConfigError: a key, table or value of the recipe is wrong.
        ResourceError: another run works in the directory.
    """
    console = console or Console()
    file = find_recipe(config.recipe)
    given = read_toml(file)
    recipe = apply_overrides(given, config.overrides)
    name = _name(recipe.pop("name", file.stem))
    directory = config.runs / name
    given |= {key: recipe[key] for key in (VERSION,) if key in recipe}  # --set version=2 counts, too
    require_absolute_rates(given, file.name, lambda stage, table: _base_of(stage, table, directory))
    steps = steps_of(recipe, directory, file.name, stages)
    with exclusive(directory):
        _keep_recipe(directory / "recipe.toml", name, steps)
        console.note(f"{config.recipe} → {directory}")
        artifacts = {}
        with console.stages({step.stage.name: step.stage.about for step in steps}) as shown:
            for step in steps:
                before = _finished(step.out)
                shown.mark(step.stage.name, "running")
                made: artifact.Artifact = step.stage.module.run(step.config, console=console)
                skipped = made == before
                shown.mark(step.stage.name, "skipped" if skipped else "done", seconds=made.seconds)
                artifacts[step.stage.name] = made
    _say_what_is_next(console, directory, steps, artifacts)
    return Run(name, directory, artifacts)


def _base_of(stage: str, table: Mapping[str, Any], directory: Path) -> Path | None:
    """The model that a stage of a recipe starts from, if it is known before the run."""
    if "model" in table:
        return Path(str(table["model"]))
    sources = STAGES[stage].inputs.get("model", ())
    return _earlier([sources] if isinstance(sources, str) else sources, {}, STAGES, directory)


def _name(name: Any) -> str:
    # It becomes a directory's name, on any system.
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        return name
    raise ConfigError(
        f"name = {name!r}",
        rule="a run's name is made of letters, digits, '-', '_' and '.'",
        fix='Write, for example, name = "my-run".',
    )


def steps_of(recipe: Mapping[str, Any], directory: Path, file: str, stages: Mapping[str, Stage] = STAGES) -> list[Step]:
    """The steps of a recipe (without its name) in a run's directory, every table checked, in the stages' order.

    The version of the recipe is checked before.

    Raises:
        ConfigError: a key, table or value of the recipe is wrong; `file` is named in the message.
    """
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
                if earlier := _earlier([sources] if isinstance(sources, str) else sources, outputs, known, directory):
                    wired[key] = str(earlier)
            wired |= dict(_shared(stage, tables))
            config: Any = load(stage.config, wired | tables[name], f"[{name}] in {file}")
            outputs[name] = config.out
            steps.append(Step(stage, config, config.out, frozenset(wired.keys() - tables[name].keys())))
    return steps


def _earlier(
    sources: Collection[str], outputs: Mapping[str, Path], known: Mapping[str, Stage], directory: Path
) -> Path | None:
    """What the first of these stages leaves that the recipe has; or has left there before."""
    if (found := next((outputs[source] for source in sources if source in outputs), None)) is not None:
        return found
    places = (directory / str(known[source].directory) for source in sources)
    return next((place for place in places if place.exists()), None)


def _shared(stage: Stage, tables: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The keys of a stage that stand in another's table, where they say the same."""
    for key, places in stage.shared.items():
        for table, name in (place.rsplit(".", 1) for place in places):
            if name in tables.get(table, {}):
                yield key, tables[table][name]
                break


def _tables(
    recipe: Mapping[str, Any], known: Collection[str], file: str, prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(stage, table) of each table of the recipe; a stage whose name has a dot is a table inside another."""
    for key, value in recipe.items():
        name = prefix + key
        inside = [other for other in known if other.startswith(f"{name}.")]
        if name not in known and not inside:
            expected = [other.removeprefix(prefix) for other in known if other.startswith(prefix)]
            raise unknown_key(f"{name} in {file}", key, ([] if prefix else ["name", VERSION]) + expected, kind="table")
        if not isinstance(value, dict):
            rule, fix = f"{name} is a table", f"Write [{name}] on a line, and its keys below."
            raise ConfigError(f"{name} = {value!r} in {file}", rule=rule, fix=fix)
        if name in known:
            yield name, value
        else:
            yield from _tables(value, known, file, f"{name}.")


def _finished(directory: Path) -> artifact.Artifact | None:
    try:
        return artifact.read(directory)
    except GroundupError:
        return None


_LEFT_OUT = (
    "# Logins and tokens were left out: REDACTED is in their place. To run this copy, write ${NAME} for it\n"
    "# and set the environment variable NAME; or run the recipe that you wrote.\n\n"
)


def _keep_recipe(path: Path, name: str, steps: list[Step]) -> None:
    """Write the recipe with every default resolved, without secrets and the paths that the run chose: it can move."""
    document: dict[str, Any] = {VERSION: RECIPE_VERSION, "name": name}
    for step in steps:
        *parents, last = step.stage.name.split(".")
        holder = document
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = step.config.model_dump(mode="json", exclude_none=True, exclude=set(step.chosen))
    kept = redacted_config(document)
    with atomic_file(path) as temporary:
        temporary.write_text((_LEFT_OUT if kept != document else "") + tomlkit.dumps(kept), encoding="utf-8")


def _say_what_is_next(
    console: Console, directory: Path, steps: list[Step], artifacts: Mapping[str, artifact.Artifact]
) -> None:
    total = format_duration(sum(made.seconds for made in artifacts.values()))
    console.note(f"\nAll in {directory} ({total} of work).")
    commands = [
        command.format(run=shell_quoted(directory), out=shell_quoted(step.out))
        for step in steps
        for command in step.stage.then
    ]
    if commands:
        console.rule("Next")
        for command in commands:
            console.note(f"  {command}")
