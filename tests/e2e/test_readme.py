"""Run the commands of the README in a new home directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from as_shown import ROOT, commands_of, fill_home, fill_library, recipes_of, run_as_shown

README = ROOT / "README.md"


@pytest.fixture
def home(tmp_path: Path, real_documents: list[str]) -> Path:
    """A home directory with the files, the library and the recipes that the README names."""
    fill_home(tmp_path, real_documents)
    fill_library(tmp_path / "library", real_documents)
    for name, recipe in recipes_of(README).items():
        (tmp_path / name).write_text(recipe, encoding="utf-8")
    return tmp_path


def test_the_commands_of_the_readme(home: Path) -> None:
    commands = commands_of(README)
    stages = {
        "run",
        "collect",
        "tokenize",
        "pretrain",
        "finetune",
        "evaluate",
        "report",
        "generate",
        "classify",
        "model",
        "corpus",
    }
    assert {command[1] for command in commands} >= stages | {"chat", "serve"}
    for command in commands:
        written = run_as_shown(command, home)
        if command[1:3] == ["corpus", "search"]:
            assert "[octopus merge]" in written
    assert (home / "runs" / "notes" / "report.html").is_file()
