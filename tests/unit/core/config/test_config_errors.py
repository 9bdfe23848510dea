"""An error about a recipe contains the key, its value and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from groundup.core.config import Config, load, setting
from groundup.core.errors import ConfigError


class Folder(Config):
    kind: Literal["folder"] = setting(help="files of a folder")
    path: Path = setting(help="where the files are")
    license: str | None = setting(None, help="their license")


class Package(Config):
    kind: Literal["package"] = setting(help="files of a package")
    name: str = setting(help="the package")


class Schedule(Config):
    warmup_steps: int = setting(10, help="steps of warmup", ge=0)
    lr: float = setting(1e-3, help="peak learning rate", gt=0)


class Work(Config):
    sources: list[Annotated[Folder | Package, Field(discriminator="kind")]] = setting(help="where text comes from")
    out: Path = setting(help="output directory", flag=True)
    depth: int | None = setting(None, help="layers", ge=2)
    betas: tuple[float, float] = setting((0.9, 0.95), help="decay rates")
    schedule: Schedule = setting(Schedule(), help="the learning rate over time")
    shuffle: bool = setting(True, help="shuffle documents")
    name: str = setting("work", help="what it is called", pattern=r"^\S+$")
    table: Path | list[Folder] | None = setting(None, help="a table, or where it comes from")
    limits: dict[str, int] = setting({}, help="bytes of each source at most")


GOOD: dict[str, Any] = {"sources": [{"kind": "folder", "path": "notes"}], "out": "corpus"}


def test_toml_values_become_typed_values() -> None:
    config = load(Work, GOOD | {"betas": [1, 0.5], "schedule": {"lr": 1}})
    assert config.sources[0] == Folder(kind="folder", path=Path("notes"))
    assert (config.betas, config.schedule.lr) == ((1.0, 0.5), 1.0)


def test_home_directory_expands_also_inside_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a TOML file, no shell expands "~", so the config must expand it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    config = load(Work, GOOD | {"sources": [{"kind": "folder", "path": "~/notes"}], "out": "~/corpus"})
    assert isinstance(config.sources[0], Folder)
    assert (config.sources[0].path, config.out) == (tmp_path / "notes", tmp_path / "corpus")


@pytest.mark.parametrize(
    ("change", "in_value", "in_rest"),
    [
        ({"depht": 4}, "'depht' in [work] in my.toml; did you mean 'depth'?", ""),
        ({"schedule": {"warmup": 3}}, "'schedule.warmup' in", ""),
        ({"schedule": {"warmup": 3}}, "did you mean 'schedule.warmup_steps'?", ""),
        ({"sources": [{"kind": "folder", "pth": "x"}]}, "did you mean 'sources[0].path'?", ""),
        ({"sources": [{"kind": "foldr", "path": "x"}]}, 'kind = "foldr"', 'Did you mean kind = "folder"?'),
        ({"sources": [{"path": "x"}]}, "kind is missing", "kind must be one of folder, package"),
        (
            {"sources": [GOOD["sources"][0], {"kind": "package"}]},
            "sources[1].name is missing (The package)",
            "Write name =",
        ),
        ({"sources": "notes"}, 'sources = "notes"', "a list"),
        ({"out": ""}, 'out = ""', "current directory"),  # Path("") would be the current directory
        ({"name": "two words"}, 'name = "two words"', "regular expression ^\\S+$"),
        ({"work": {"depth": 3}}, "unknown setting 'work'", 'Remove "work." from the start.'),
        ({"a": {"work": {"depth": 3}}}, "unknown setting 'a'", 'Remove "a.work." from the start.'),
        ({"table": 3}, "table = 3", "a path, in quotes"),
        ({"table": [{"kind": "folder", "pth": "x"}]}, "did you mean 'table[0].path'?", ""),
        ({"depth": 1}, "depth = 1", "greater than or equal to 2"),
        ({"depth": "4"}, 'depth = "4"', "whole number"),
        ({"depth": True}, "depth = true", "whole number"),  # in Python, True == 1
        ({"depth": 4.5}, "depth = 4.5", "whole number"),
        ({"shuffle": 1}, "shuffle = 1", "true or false"),
        ({"out": 3}, "out = 3", "a path, in quotes"),
        ({"betas": [0.9]}, "betas[1]", ""),
        ({"schedule": {"lr": 0}}, "schedule.lr = 0", "greater than 0"),
        ({"schedule": 3}, "schedule = 3", "table"),
        ({"limits": {"books": "many"}}, 'limits.books = "many"', "whole number"),
    ],
)
def test_error_names_key_value_and_fix(change: dict[str, Any], in_value: str, in_rest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Work, GOOD | change, "[work] in my.toml")
    error = caught.value
    assert "[work] in my.toml" in error.value
    assert in_value in error.value
    assert in_rest in f"{error.rule} {error.fix}"
    assert error.fix.endswith((".", "?", ".)")) or "did you mean" in error.value


def test_a_misspelled_required_key_is_unknown_and_not_missing() -> None:
    """A misspelled key is unknown, and the correct key is missing. Only the first fact shows what to change."""
    with pytest.raises(ConfigError, match="unknown setting 'ot'"):
        load(Work, {"sources": GOOD["sources"], "ot": "corpus"})


def test_missing_key_names_its_flag() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Work, {"sources": GOOD["sources"]})
    assert "out is missing" in caught.value.value
    assert "--out" in caught.value.fix


def test_long_values_are_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Work, GOOD | {"depth": "x" * 10_000})
    assert len(caught.value.value) < 200


def test_text_that_is_not_utf8_is_kept() -> None:
    """If a file name is not UTF-8, Python decodes some bytes to lone surrogates, which JSON rejects."""
    sources = [{"kind": "folder", "path": "caf\udce9", "license": "\udcff"}]
    config = load(Work, GOOD | {"sources": sources, "table": "t\udcff.csv"})
    assert config.sources == [Folder(kind="folder", path=Path("caf\udce9"), license="\udcff")]
    assert config.table == Path("t\udcff.csv")


def test_home_of_an_unknown_user_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="~no-such-user-here") as caught:
        load(Work, GOOD | {"out": "~no-such-user-here/corpus"})
    assert "in full" in caught.value.fix
