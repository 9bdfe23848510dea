"""Listing of runs, models and recipes, which requests can only refer to by id."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.core.artifact import begin
from groundup.core.errors import DataError
from groundup.recipes import bundled
from groundup.studio import Workspace

# Locks a stage's directory as training does, until stdin is closed.
LOCK = """
import sys
from pathlib import Path
from groundup.core.artifact import begin
work = begin(Path(sys.argv[1]), "pretrain", {}, {})
print("locked", flush=True)
sys.stdin.read()
"""


def names(workspace: Workspace) -> list[str]:
    return [model.name for model in workspace.models()]


@pytest.mark.parametrize(
    ("root", "run_names", "models", "default_model"),
    [
        (".", {"one", "two"}, ["one/base", "two/base", "alone"], None),
        ("one", {"one"}, ["one/base"], None),
        ("one/base", {"one"}, ["one/base"], "one/base"),
        ("alone", set(), ["alone"], "alone"),
        ("empty", set(), [], None),
    ],
)
def test_the_root_is_a_directory_of_runs_or_a_run_or_a_model(
    runs: Path, root: str, run_names: set[str], models: list[str], default_model: str | None
) -> None:
    workspace = Workspace(runs / root, runs / "recipes")
    assert {run.name for run in workspace.runs()} == run_names
    assert names(workspace) == models
    assert workspace.default_model == default_model
    assert workspace.runs_directory == (runs / "empty" if root == "empty" else runs)


def test_a_stage_has_a_headline_and_a_summary(runs: Path) -> None:
    stage = Workspace(runs, runs).stage("one/base")
    assert (stage.stage, stage.state, stage.headline) == ("pretrain", "done", "12.3k parameters")
    assert stage.summary == "12,345 parameters, 1,000 tokens seen"


@pytest.mark.parametrize("name", ["../one", "one/../two", "/etc", "", ".", "one/base/../../two/base", "one\x00"])
def test_an_id_that_is_not_listed_is_rejected(runs: Path, name: str) -> None:
    workspace = Workspace(runs, runs)
    with pytest.raises(DataError):
        workspace.run(name)
    with pytest.raises(DataError):
        workspace.stage(name)


def test_a_damaged_record_does_not_hide_other_models(runs: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    (root / "one" / "base" / "artifact.json").write_text("{", encoding="utf-8")
    (root / "two" / "base" / "config.json").write_text("{", encoding="utf-8")
    workspace = Workspace(root, root)
    assert {run.name for run in workspace.runs()} == {"one", "two"}
    assert "two/base" not in names(workspace)
    assert "alone" in names(workspace)


@pytest.mark.skipif(os.name == "nt", reason="uses SIGKILL")
def test_a_killed_run_is_not_shown_as_running(tmp_path: Path) -> None:
    """A killed run leaves its lock file."""
    directory = tmp_path / "runs" / "some" / "base"
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        workspace = Workspace(tmp_path / "runs", tmp_path)
        assert (workspace.stage("some/base").state, workspace.run("some").running) == ("running", True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (workspace.stage("some/base").state, workspace.run("some").running) == ("stopped", False)


def test_recipes_are_listed_from_the_directory_the_package_and_runs(runs: Path, tmp_path: Path) -> None:
    """Bundled recipes were not listed, so an installed package had no recipes."""
    (tmp_path / "mine.toml").write_text("[collect]\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no recipe", encoding="utf-8")
    recipes = Workspace(runs, tmp_path).recipes()
    own = {"mine.toml": tmp_path / "mine.toml", "one/recipe.toml": runs / "one" / "recipe.toml"}
    assert recipes == own | bundled()
    assert next(iter(recipes)) == "mine.toml"


def test_a_replaced_output_is_not_a_stage(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "some"
    for settings in ({"a": 1}, {"a": 2}):
        work = begin(run / "tokens", "tokenize", settings, {})
        output = work.directory / "index.json"
        output.write_text("{}", encoding="utf-8")
        work.finish({}, [output])
    assert len(list(run.iterdir())) == 2
    assert [stage.id for stage in Workspace(tmp_path / "runs", tmp_path).run("some").stages] == ["some/tokens"]


def test_a_run_with_only_a_log_is_listed(tmp_path: Path) -> None:
    """The recipe is written seconds after the start, or not at all if the run fails."""
    (tmp_path / "runs" / "new").mkdir(parents=True)
    assert Workspace(tmp_path / "runs", tmp_path).runs() == []
    (tmp_path / "runs" / "new" / "studio.log").write_text("error: ...", encoding="utf-8")
    assert [run.name for run in Workspace(tmp_path / "runs", tmp_path).runs()] == ["new"]
