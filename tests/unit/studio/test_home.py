"""What lies in a directory is found and called by names; a page can name nothing else."""

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
from groundup.studio import Home

# Holds a stage's directory as training does, until its stdin ends.
HOLD = """
import sys
from pathlib import Path
from groundup.core.artifact import begin
work = begin(Path(sys.argv[1]), "pretrain", {}, {})
print("held", flush=True)
sys.stdin.read()
"""


def names(home: Home) -> list[str]:
    return [model.name for model in home.models()]


@pytest.mark.parametrize(
    ("inside", "runs_there", "models", "chosen"),
    [
        (".", {"one", "two"}, ["one/base", "two/base", "alone"], None),
        ("one", {"one"}, ["one/base"], None),
        ("one/base", {"one"}, ["one/base"], "one/base"),
        ("alone", set(), ["alone"], "alone"),
        ("nothing yet", set(), [], None),
    ],
)
def test_runs_one_run_or_one_model(
    runs: Path, inside: str, runs_there: set[str], models: list[str], chosen: str | None
) -> None:
    """Whoever points at a model wants to see where it came from; whoever has nothing yet wants to begin."""
    home = Home(runs / inside, runs / "recipes")
    assert {run.name for run in home.runs()} == runs_there
    assert names(home) == models
    assert home.chosen == chosen
    assert home.runs_directory == (runs / "nothing yet" if inside == "nothing yet" else runs)


def test_what_a_stage_left_is_told(runs: Path) -> None:
    stage = Home(runs, runs).stage("one/base")
    assert (stage.stage, stage.state, stage.figure) == ("pretrain", "done", "12.3k weights")
    assert stage.says == "12,345 weights, 1,000 tokens seen"


@pytest.mark.parametrize("name", ["../one", "one/../two", "/etc", "", ".", "one/base/../../two/base", "one\x00"])
def test_a_name_leads_nowhere_but_to_what_was_found(runs: Path, name: str) -> None:
    home = Home(runs, runs)
    with pytest.raises(DataError):
        home.run(name)
    with pytest.raises(DataError):
        home.stage(name)


def test_one_damaged_record_hides_nothing_else(runs: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(runs, root)
    (root / "one" / "base" / "artifact.json").write_text("{", encoding="utf-8")
    (root / "two" / "base" / "config.json").write_text("{", encoding="utf-8")
    home = Home(root, root)
    assert {run.name for run in home.runs()} == {"one", "two"}
    assert "two/base" not in names(home)
    assert "alone" in names(home)


@pytest.mark.skipif(os.name == "nt", reason="there the lock itself is asked, which needs no process")
def test_who_works_in_a_directory_is_seen_and_who_was_killed_is_not(tmp_path: Path) -> None:
    """A run that was killed leaves its lock file: it must not look as if it learned for ever."""
    directory = tmp_path / "runs" / "some" / "base"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        home = Home(tmp_path / "runs", tmp_path)
        assert (home.stage("some/base").state, home.run("some").running) == ("running", True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (home.stage("some/base").state, home.run("some").running) == ("stopped", False)


def test_recipes_are_those_of_the_folder_the_bundled_ones_and_those_of_runs(runs: Path, tmp_path: Path) -> None:
    """Installed from a wheel there is no folder of recipes, and the page said "no recipe found"."""
    (tmp_path / "mine.toml").write_text("[collect]\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no recipe", encoding="utf-8")
    found = Home(runs, tmp_path).recipes()
    own = {"mine.toml": tmp_path / "mine.toml", "one/recipe.toml": runs / "one" / "recipe.toml"}
    assert found == own | bundled()
    assert next(iter(found)) == "mine.toml"


def test_what_was_set_aside_is_no_stage(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "some"
    for settings in ({"a": 1}, {"a": 2}):
        work = begin(run / "tokens", "tokenize", settings, {})
        output = work.directory / "index.json"
        output.write_text("{}", encoding="utf-8")
        work.finish({}, [output])
    assert len(list(run.iterdir())) == 2
    assert [stage.place for stage in Home(tmp_path / "runs", tmp_path).run("some").stages] == ["some/tokens"]


def test_a_run_that_has_only_just_been_started_is_there(tmp_path: Path) -> None:
    """It takes seconds until its recipe is written, and one that fails at once writes none: its log must be found."""
    (tmp_path / "runs" / "new").mkdir(parents=True)
    assert Home(tmp_path / "runs", tmp_path).runs() == []
    (tmp_path / "runs" / "new" / "studio.log").write_text("error: ...", encoding="utf-8")
    assert [run.name for run in Home(tmp_path / "runs", tmp_path).runs()] == ["new"]
