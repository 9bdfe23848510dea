"""Runs that are started from the page: real processes, with logs, and no way to make a page's text an option."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.core.errors import ConfigError, DataError
from groundup.studio import Jobs

RECIPE = 'name = "some"\n[collect]\nsources = [{kind = "folder", name = "none", path = "nowhere", license = "none"}]\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "some.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def ended(jobs: Jobs, name: str) -> str:
    jobs._jobs[name].process.wait(60)
    return jobs.log(name)


def test_a_run_has_its_own_log_and_says_how_it_ended(tmp_path: Path, recipe: Path) -> None:
    jobs = Jobs(tmp_path / "runs")
    jobs.start(recipe, "mine")
    assert "nowhere" in ended(jobs, "mine")
    assert jobs.told("mine") == {"running": False, "stopping": False, "code": 1}
    assert (tmp_path / "runs" / "mine" / "studio.log").is_file()
    assert jobs.told("other") is None


@pytest.mark.parametrize("change", ["--help", "--runs=/", "-h"])
def test_a_change_that_looks_like_an_option_is_none(tmp_path: Path, recipe: Path, change: str) -> None:
    """Whoever reaches the page may change a recipe; not which program runs, or where."""
    jobs = Jobs(tmp_path / "runs")
    jobs.start(recipe, "mine", [change])
    assert "Usage" not in ended(jobs, "mine")
    told = jobs.told("mine")
    assert told is not None
    assert told["code"] in (1, 2)


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", ".hidden", "/tmp"])
def test_a_name_is_that_of_one_directory(tmp_path: Path, recipe: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        Jobs(tmp_path / "runs").start(recipe, name)


def test_what_was_not_started_here_is_not_stopped(tmp_path: Path, recipe: Path) -> None:
    jobs = Jobs(tmp_path / "runs")
    with pytest.raises(DataError, match="not running"):
        jobs.stop("mine")
    jobs.start(recipe, "mine")
    ended(jobs, "mine")
    with pytest.raises(DataError, match="not running"):
        jobs.stop("mine")
