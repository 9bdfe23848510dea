"""The commands that the README shows work as they stand there, in a new user's home."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Only how long they train is changed.
SHORT = {
    "run": ["--set", "pretrain.minutes=0.05", "--set", "pretrain.compile=false"],
    "pretrain": ["--minutes", "0.05", "--set", "compile=false"],
}


def shown_commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("groundup ")]


def test_the_commands_of_the_readme(tmp_path: Path, real_documents: list[str]) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for number, text in enumerate(real_documents):
        (notes / f"{number:03}.md").write_text(text, encoding="utf-8")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    commands = shown_commands()
    assert {command[1] for command in commands} >= {"run", "collect", "tokenize", "pretrain", "evaluate", "generate"}
    for command in commands:
        home = str(tmp_path)
        words = [word.replace("~", home, 1) if word.startswith("~/") else word for word in command[1:]]
        full = [sys.executable, "-m", "groundup", *words, *SHORT.get(command[1], [])]
        done = subprocess.run(full, cwd=tmp_path, env=os.environ | {"HOME": home}, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
        if command[1] == "generate":
            assert done.stdout.strip()
    assert (tmp_path / "runs" / "notes" / "report" / "report.md").is_file()
