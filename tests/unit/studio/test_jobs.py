"""Runs that are started from the page, as real processes; text from a page cannot become an option."""

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


def test_a_run_has_a_log_and_an_exit_code(tmp_path: Path, recipe: Path) -> None:
    jobs = Jobs(tmp_path / "runs")
    jobs.start(recipe, "mine")
    assert "nowhere" in ended(jobs, "mine")
    assert jobs.status("mine") == {"running": False, "stopping": False, "code": 1}
    assert (tmp_path / "runs" / "mine" / "studio.log").is_file()
    assert jobs.status("other") is None


@pytest.mark.parametrize("override", ["--help", "--runs=/", "-h"])
def test_an_override_cannot_become_an_option(tmp_path: Path, recipe: Path, override: str) -> None:
    """A request may change settings of the recipe, but not the command line."""
    jobs = Jobs(tmp_path / "runs")
    jobs.start(recipe, "mine", [override])
    assert "Usage" not in ended(jobs, "mine")
    status = jobs.status("mine")
    assert status is not None
    assert status["code"] in (1, 2)


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", ".hidden", "/tmp"])
def test_a_run_name_is_a_single_directory_name(tmp_path: Path, recipe: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        Jobs(tmp_path / "runs").start(recipe, name)


def test_only_running_jobs_can_be_stopped(tmp_path: Path, recipe: Path) -> None:
    jobs = Jobs(tmp_path / "runs")
    with pytest.raises(DataError, match="not running"):
        jobs.stop("mine")
    jobs.start(recipe, "mine")
    ended(jobs, "mine")
    with pytest.raises(DataError, match="not running"):
        jobs.stop("mine")
