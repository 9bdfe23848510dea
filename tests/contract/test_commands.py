"""The help of every command is short, has an example and does not import torch. Printed settings can be read back."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from groundup import __version__
from groundup.apps import Catalog
from groundup.cli import cli
from groundup.cli.commands import COMMANDS
from groundup.commands import STAGES
from groundup.core.config import load, read_toml, settings_of
from groundup.core.recipe import recipe_steps
from groundup.recipes import bundled

# This code prints the names of the imported modules as JSON when the command ends.
IMPORTED = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from groundup.cli import main
main(sys.argv[1:])
"""
MAX_HELP_LINES = 36
HEAVY = {"torch", "transformers", "tokenizers", "pyarrow", "tiktoken", "resiliparse", "pyppmd"}


def imported_by(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short_and_ends_with_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"], prog_name="groundup")
    assert result.exit_code == 0
    lines = result.output.rstrip().splitlines()
    assert len(lines) <= MAX_HELP_LINES
    assert max(len(line) for line in lines) <= 100
    assert re.fullmatch(rf"Example: groundup {command}( .+)", lines[-1])
    if re.search(r"\[OPTIONS\] (?!COMMAND)\S", lines[0]):
        assert "Arguments:" in lines


@pytest.mark.parametrize("command", COMMANDS)
def test_example_of_the_help_is_a_command_line_that_parses(
    command: str, parse: Callable[[Sequence[str]], None]
) -> None:
    parse(shlex.split(COMMANDS[command].example)[1:])


@pytest.mark.parametrize("name", Catalog())
def test_help_of_an_application_is_short_and_its_example_parses(
    name: str, parse: Callable[[Sequence[str]], None]
) -> None:
    """The options and the example of the command are derived from the inputs of the application."""
    result = CliRunner().invoke(cli, ["apps", name, "--help"], prog_name="groundup")
    assert result.exit_code == 0
    lines = result.output.rstrip().splitlines()
    assert len(lines) <= MAX_HELP_LINES
    assert max(len(line) for line in lines[:-1]) <= 100
    assert re.fullmatch(rf"Example: groundup apps {name}( .+)", lines[-1])
    parse(shlex.split(lines[-1].removeprefix("Example: "))[1:])
    assert not imported_by("apps", name, "--help") & HEAVY


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_takes_the_common_options(stage: str) -> None:
    result = CliRunner().invoke(cli, [*STAGES[stage].command.split(), "--help"])
    for option in ("--config", "--set", "--quiet", "--json"):
        assert f"  {option}" in result.output


def test_help_and_version_import_no_stage_and_nothing_heavy() -> None:
    for arguments in (["--help"], ["--version"]):
        modules = imported_by(*arguments)
        assert not modules & (HEAVY | {"pydantic", "rich", "numpy"})
        assert not [name for name in modules if name.startswith("groundup.commands.")]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_imports_no_torch(command: str) -> None:
    assert not imported_by(*command.split(), "--help") & HEAVY


@pytest.mark.parametrize("stage", STAGES)
def test_settings_of_a_stage_print_without_torch_and_read_back_as_the_defaults(stage: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "groundup", "config", stage],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    printed = tomllib.loads(done.stdout)
    for part in stage.split("."):
        printed = printed[part]
    config = STAGES[stage].config
    required: dict[str, Any] = {item.name: "somewhere" for item in settings_of(config) if item.required}
    if stage == "pretrain":  # pretraining has no default for its duration
        required["tokens"] = 1
    assert load(config, printed | required) == load(config, required)
    for item in settings_of(config):
        assert item.help, f"{stage}.{item.name} has no help text"
        table = re.escape(f"[{stage}.{item.name}]")
        assert re.search(rf"^(# )?{item.name} = |^{table}", done.stdout, re.MULTILINE), item.name
    assert "torch" not in imported_by("config", stage)


@pytest.mark.parametrize("recipe", bundled().values(), ids=lambda path: path.name)
def test_bundled_recipes_are_valid(recipe: Path) -> None:
    """The whole recipe is validated, including the paths that the run adds."""
    tables = {key: value for key, value in read_toml(recipe).items() if key != "name"}
    assert recipe_steps(tables, Path("runs/any"), recipe.name, STAGES)


def test_wired_inputs_are_keys_of_the_stage() -> None:
    """Otherwise, a renamed key would cause an error only in a complete run."""
    for stage in STAGES.values():
        known = {item.name for item in settings_of(stage.config)}
        assert set(stage.inputs) <= known
        sources = {name for each in stage.inputs.values() for name in ([each] if isinstance(each, str) else each)}
        assert {name.partition("/")[0] for name in sources} <= set(STAGES)
        assert set(stage.shared) <= known
        for table, key in (place.rsplit(".", 1) for places in stage.shared.values() for place in places):
            assert key in {item.name for item in settings_of(STAGES[table].config)}
        assert stage.directory is None or "out" in known


def test_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    assert result.output == f"groundup {__version__}\n"
