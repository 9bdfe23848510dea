"""The commands that the README shows work as they stand there, in a new user's home."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Only how long they train is changed, and what they compile.
SHORT = {
    "run": [
        "--set",
        "pretrain.minutes=0.05",
        "--set",
        "pretrain.compile=false",
        "--set",
        "finetune.instruct.epochs=0.1",
    ],
    "pretrain": ["--minutes", "0.05", "--set", "compile=false"],
    "finetune": ["--epochs", "1"],
    "serve": ["--port", "0", "--json"],
}


def shown_commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("groundup ")]


def shown_recipes() -> dict[str, str]:
    """The recipes that the README's commands name, by their files."""
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    named = {block: re.match(r"# (\w+\.toml)\n", block) for block in blocks}
    return {name[1]: block for block, name in named.items() if name}


@pytest.fixture
def home(tmp_path: Path, real_documents: list[str]) -> Path:
    """A user's home with what the README speaks of: notes, a library, questions with answers, mails with labels."""
    for folder, texts in (("notes", real_documents), ("letters", real_documents[20:])):
        (tmp_path / folder).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / folder / f"{number:03}.md").write_text(text, encoding="utf-8")
    _fill_library(tmp_path / "library", real_documents)
    for name, recipe in shown_recipes().items():
        (tmp_path / name).write_text(recipe, encoding="utf-8")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    lines = [line.strip() for text in real_documents for line in text.splitlines() if len(line) > 40]
    with (tmp_path / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["question", "answer"], *pairwise(lines[:200])])
    with (tmp_path / "mails.csv").open("w", newline="", encoding="utf-8") as file:
        kinds = [("statement" if "statement" in line else "other") for line in lines[:400]]
        csv.writer(file).writerows([["text", "label"], *zip(lines[:400], kinds, strict=True)])
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
    commands = shown_commands()
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
        words = [word.replace("~", str(home), 1) if word.startswith("~/") else word for word in command[1:]]
        full = [sys.executable, "-m", "groundup", *words, *SHORT.get(command[1], [])]
        process = subprocess.Popen(
            full,
            cwd=home,
            env=os.environ | {"HOME": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if command[1] == "serve":
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            health = urllib.request.urlopen(told["url"] + "/health").status
            assert health == 200
            process.terminate()
        written, said = process.communicate("Hello\n")
        assert process.returncode == 0, f"{shlex.join(command)}\n{said}"
        if command[1] in ("generate", "classify", "chat", "model", "corpus"):
            assert written.strip(), shlex.join(command)
        if command[1:3] == ["corpus", "search"]:
            assert "[octopus merge]" in written
    assert (home / "runs" / "notes" / "report.html").is_file()
