"""Compare the messages of docs/troubleshooting.md with the errors of the commands that it shows.

`PYTHONPATH=tests .venv/bin/python tests/e2e/test_troubleshooting.py` writes the current messages into the page.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from groundup.cli import cli
from groundup.core.errors import GroundupError
from python_topics import TOPICS

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
BLOCK = re.compile(r"^```text\n\$ (groundup .*)\n((?:.*\n)*?)```$", re.MULTILINE)
MEMORY = re.compile(r"[\d.,]+ GB (?=(are )?available)")  # depends on the machine
SETUP = """
groundup collect --folder notes --out runs/notes/corpus
groundup collect --folder letters --out runs/letters/corpus
groundup tokenize runs/notes/corpus --out runs/notes/tokens --vocab-size 512
groundup tokenize runs/letters/corpus --out runs/letters/tokens --vocab-size 512
groundup pretrain runs/notes/tokens --out runs/notes/base --tokens 50_000 --set compile=false --set shape.n_layers=1
--set shape.dim=64 --set shape.context_length=128
"""
RECIPE = """name = "example"

[import]
path = "runs/notes/base"

[finetune.instruct]
data = "questions.csv"
"""


def fill(home: Path) -> None:
    """Write the files that the commands of the page read."""
    texts = list(TOPICS.values())
    for folder, chosen in (("notes", texts), ("letters", texts[40:]), ("short", [texts[0][:3000]])):
        (home / folder).mkdir()
        for number, text in enumerate(chosen):
            (home / folder / f"{number:03}.md").write_text(text, encoding="utf-8")
    lines = [line.strip() for text in texts for line in text.splitlines() if len(line) > 40]
    tables = {
        "questions.csv": [("question", "answer"), *zip(lines[:60], lines[60:120], strict=True)],
        "mails.csv": [("text", "label"), *((line, "spam") for line in lines[:30])],
        "unclear.csv": [("a", "b", "c"), *zip(lines[:30], lines[30:60], lines[60:90], strict=True)],
    }
    for name, rows in tables.items():
        with (home / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    (home / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "a",\n', encoding="utf-8")
    (home / "broken.gguf").write_bytes(b"GGUF")
    collect = '[collect]\nsources = [{ kind = "folder", path = "notes" }]\n\n[tokenize]\n\n'
    (home / "notes.toml").write_text(f'name = "new"\n\n{collect}[pretrain]\nminuts = 5\n', encoding="utf-8")
    (home / "old.toml").write_text(f"version = 2\n{RECIPE}epochs = 2\n", encoding="utf-8")
    (home / "rates.toml").write_text(f"{RECIPE}learning_rate = 0.5\n", encoding="utf-8")


def run_setup(home: Path) -> None:
    """Write the runs that the commands of the page read. The working directory must be `home`."""
    fill(home)
    for line in SETUP.replace("\n--", " --").strip().splitlines():
        result = CliRunner().invoke(cli, shlex.split(line)[1:], prog_name="groundup")
        assert result.exit_code == 0, result.output
    shutil.copytree(home / "runs" / "notes" / "base", home / "runs" / "damaged")
    with (home / "runs" / "damaged" / "config.json").open("a", encoding="utf-8") as file:
        file.write("\n")


def message_of(command: str) -> str:
    """Run a command that fails, and return its error as the command line prints it."""
    result = CliRunner().invoke(cli, shlex.split(command)[1:], prog_name="groundup")
    error = result.exception
    assert isinstance(error, GroundupError), f"{command}\n{result.output}"
    parts = (("error", error.value), (" rule", error.rule), ("  fix", error.fix))
    return "".join(f"{name}: {text}\n" for name, text in parts if text)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.chdir(home)
        patch.delenv("GROUNDUP_API_KEY", raising=False)
        run_setup(home)
        yield home


@pytest.mark.parametrize(("command", "shown"), BLOCK.findall(PAGE.read_text(encoding="utf-8")))
def test_the_message_is_the_one_that_the_command_prints(home: Path, command: str, shown: str) -> None:
    """Readers search for the text of an error."""
    if "--device cuda" in command and torch.version.cuda is not None:
        pytest.skip("the message is that of a CPU build of torch")
    assert MEMORY.sub("", message_of(command)) == MEMORY.sub("", shown)


def test_the_page_has_twenty_messages() -> None:
    assert len(BLOCK.findall(PAGE.read_text(encoding="utf-8"))) >= 20


def write_messages() -> None:
    """Write the current messages into the page."""
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        run_setup(Path(directory))
        page = BLOCK.sub(lambda block: f"```text\n$ {block[1]}\n{message_of(block[1])}```", page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write_messages()
