"""The commands that the README shows work as they stand there, in a new user's home."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from as_shown import ROOT, commands_of, fill_home, run_as_shown

README = ROOT / "README.md"


def shown_recipes() -> dict[str, str]:
    """The recipes that the README's commands name, by their files."""
    blocks = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    named = {block: re.match(r"# (\w+\.toml)\n", block) for block in blocks}
    return {name[1]: block for block, name in named.items() if name}


@pytest.fixture
def home(tmp_path: Path, real_documents: list[str]) -> Path:
    """A user's home with what the README speaks of, its library and its recipes among it."""
    fill_home(tmp_path, real_documents)
    _fill_library(tmp_path / "library", real_documents)
    for name, recipe in shown_recipes().items():
        (tmp_path / name).write_text(recipe, encoding="utf-8")
    return tmp_path


def _fill_library(library: Path, texts: list[str]) -> None:
    """Pages in folders of the README's names, with the one that is explained and the words that are looked for."""
    pages = {f"manuals/{number:03}.html": text for number, text in enumerate(texts[2:])}
    pages |= {"handbook/es-ES/conclusion.html": texts[0], "downloads/merge.html": f"{texts[1]}\n\nAn octopus merge."}
    for name, text in pages.items():
        path = library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        paragraphs = "".join(f"<p>{html.escape(part)}</p>" for part in text.split("\n\n"))
        path.write_text(f"<!DOCTYPE html><html><body>{paragraphs}</body></html>", encoding="utf-8")


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
