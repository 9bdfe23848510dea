"""Commands as a page shows them, in the home of the reader who copies them."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Only how long they train or write is changed, and what they compile.
SHORT = {
    "run": [
        "--set",
        "pretrain.minutes=0.05",
        "--set",
        "pretrain.compile=false",
        "--set",
        "finetune.instruct.num_epochs=0.1",
    ],
    "pretrain": ["--minutes", "0.05", "--set", "compile=false"],
    "finetune": ["--num-epochs", "1"],
    "serve": ["--port", "0", "--json"],
    "studio": ["--port", "0", "--json"],
    "chat": ["--max-tokens", "20"],
}
_SERVERS = ("serve", "studio")
_TELLERS = ("generate", "classify", "chat", "model", "corpus", "apps", "config")  # what they find is on stdout


def commands_of(page: Path) -> list[list[str]]:
    """The words of each `groundup ...` in a page's blocks of shell commands."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("groundup ")]


def fill_home(home: Path, texts: Sequence[str]) -> None:
    """What the pages speak of: notes, letters, minutes, a chapter, tables.

    Each file has the name that a page gives it, and is plain text: what a file is, its content tells.
    """
    for folder, chosen in (("notes", texts), ("letters", texts[20:])):
        (home / folder).mkdir()
        for number, text in enumerate(chosen):
            (home / folder / f"{number:03}.md").write_text(text, encoding="utf-8")
    for name, text in zip(("minutes.txt", "minutes.pdf", "chapter.epub"), texts, strict=False):
        (home / name).write_text(text, encoding="utf-8")
    lines = [line.strip() for text in texts for line in text.splitlines() if len(line) > 40]
    with (home / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["question", "answer"], *pairwise(lines[:200])])
    with (home / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([line] for line in lines[:3])])
    with (home / "mails.csv").open("w", newline="", encoding="utf-8") as file:
        kinds = [("statement" if "statement" in line else "other") for line in lines[:400]]
        csv.writer(file).writerows([["text", "label"], *zip(lines[:400], kinds, strict=True)])


def run_as_shown(command: Sequence[str], home: Path) -> str:
    """Run it there, and return what it wrote; a server is asked whether it is there, and ended."""
    words = [word.replace("~", str(home), 1) if word.startswith("~/") else word for word in command[1:]]
    process = subprocess.Popen(
        [sys.executable, "-m", "groundup", *words, *SHORT.get(command[1], [])],
        cwd=home,
        env=os.environ | {"HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if command[1] in _SERVERS:
        assert process.stdout is not None
        told = process.stdout.readline()
        assert told, process.communicate()[1]
        url = json.loads(told)["url"]
        assert urllib.request.urlopen(url if command[1] == "studio" else f"{url}/health").status == 200
        process.terminate()
    written, said = process.communicate("Hello\n")
    assert process.returncode == 0, f"{shlex.join(command)}\n{said}"
    if command[1] in _TELLERS and "--out" not in command:  # then it is in a file
        assert written.strip(), shlex.join(command)
    return written
