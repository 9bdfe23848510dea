"""`groundup run`: run all stages of a recipe in order, in one directory; finished stages are skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from groundup.commands import STAGES
from groundup.core import artifact
from groundup.core.config import VERSION, Config, apply_overrides, read_toml, setting
from groundup.core.console import Console, format_duration
from groundup.core.errors import GroundupError
from groundup.core.locks import locked_run
from groundup.core.recipe import Stage, next_commands, recipe_steps, run_name, save_recipe, starting_model
from groundup.recipes import find_recipe
from groundup.recipes.rates import require_absolute_rates


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


def run(config: RunConfig, *, console: Console | None = None, stages: Mapping[str, Stage] = STAGES) -> Run:
    """Run a recipe in `RUNS/NAME/`; NAME is the recipe's `name`, or otherwise its file name.

    All tables are checked before the first stage starts. A stage that has finished with the same config and inputs is
    skipped; an interrupted stage resumes.

    Args:
        stages: all stages, in their order.

    Raises:
        ConfigError: a key, table or value of the recipe is wrong.
        ResourceError: another run works in the directory.
    """
    console = console or Console()
    file = find_recipe(config.recipe)
    given = read_toml(file)
    recipe = apply_overrides(given, config.overrides)
    name = run_name(recipe.pop("name", file.stem))
    directory = config.runs / name
    given |= {key: recipe[key] for key in (VERSION,) if key in recipe}  # --set version=2 counts, too
    require_absolute_rates(given, file.name, lambda stage, table: starting_model(stage, table, directory, STAGES))
    steps = recipe_steps(recipe, directory, file.name, stages)
    artifacts: dict[str, artifact.Artifact] = {}
    with locked_run(directory):
        save_recipe(directory / "recipe.toml", name, steps)
        console.note(f"{config.recipe} → {directory}")
        with console.stages({step.stage.name: step.stage.about for step in steps}) as shown:
            for step in steps:
                before = _finished(step.out)
                shown.mark(step.stage.name, "running")
                made: artifact.Artifact = step.stage.module.run(step.config, console=console)
                skipped = made == before
                shown.mark(step.stage.name, "skipped" if skipped else "done", seconds=made.seconds)
                artifacts[step.stage.name] = made
    total = format_duration(sum(made.seconds for made in artifacts.values()))
    console.note(f"\nAll in {directory} ({total} of work).")
    if commands := next_commands(directory, steps):
        console.rule("Next")
        for command in commands:
            console.note(f"  {command}")
    return Run(name, directory, artifacts)


def _finished(directory: Path) -> artifact.Artifact | None:
    try:
        return artifact.read(directory)
    except GroundupError:
        return None
