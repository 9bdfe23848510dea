"""`groundup run`: run the stages of a recipe. Finished stages are skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from groundup.commands import STAGES
from groundup.core import artifact
from groundup.core.config import Config, apply_overrides, read_toml, setting
from groundup.core.console import Console, format_duration
from groundup.core.errors import GroundupError
from groundup.core.locks import locked_run
from groundup.core.recipe import Stage, next_commands, recipe_steps, run_name, save_recipe
from groundup.recipes import find_recipe


class RunConfig(Config):
    """Settings of `groundup run`."""

    recipe: Path = setting(help="recipe: a TOML file, or the name of a bundled recipe", positional=True)
    runs: Path = setting(Path("runs"), help="directory that contains all runs", flag=True)
    overrides: tuple[str, ...] = setting((), help="values that override the recipe, as TABLE.KEY=VALUE")


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        name: Name of the run.
        directory: Directory of the run.
        artifacts: Maps the name of each stage to its artifact.
    """

    name: str
    directory: Path
    artifacts: Mapping[str, artifact.Artifact]


def run(config: RunConfig, *, console: Console | None = None, stages: Mapping[str, Stage] = STAGES) -> Run:
    """Run the stages of a recipe in the directory `RUNS/NAME/`.

    NAME is the value of `name` in the recipe or, if it is not set, the name of the recipe file. All tables of the
    recipe are validated before the first stage starts. A stage is skipped if it has already finished with the same
    settings and inputs. An interrupted stage resumes.

    Args:
        config: Settings of the command.
        console: Console for messages.
        stages: Maps stage names to stages, in the order in which they run.

    Returns:
        The finished run.

    Raises:
        ConfigError: A key, table or value of the recipe is invalid.
        ResourceError: Another process uses the directory.
    """
    console = console or Console()
    file = find_recipe(config.recipe)
    recipe = apply_overrides(read_toml(file), config.overrides)
    name = run_name(recipe.pop("name", file.stem))
    directory = config.runs / name
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
    console.note(f"\nFinished in {total}. Output directory: {directory}")
    if commands := next_commands(directory, steps):
        console.rule("Next commands")
        for command in commands:
            console.note(f"  {command}")
    return Run(name, directory, artifacts)


def _finished(directory: Path) -> artifact.Artifact | None:
    try:
        return artifact.read(directory)
    except GroundupError:
        return None
