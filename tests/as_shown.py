"""Run the commands of a documentation page in a home directory with small data."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Options that shorten training and generation, and disable compilation.
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
    "bench": ["--rounds", "1", "--batch-size", "2", "--prompt-tokens", "64", "--depth", "64", "--output-tokens", "4"],
    "serve": ["--port", "0", "--json"],
    "studio": ["--port", "0", "--json"],
    "chat": ["--max-tokens", "20"],
}
_SERVERS = ("serve", "studio")
_PRINTING = ("generate", "classify", "chat", "model", "corpus", "apps", "config")  # commands with a result on stdout


def commands_of(page: Path) -> list[list[str]]:
    """Return the words of each `groundup` command in the shell blocks of a page."""
    return [shlex.split(line, comments=True) for line in _shell_lines(page) if line.startswith("groundup ")]


def environment_of(page: Path) -> dict[str, str]:
    """Return the variables that the shell blocks of a page export."""
    exports = [line.removeprefix("export ") for line in _shell_lines(page) if line.startswith("export ")]
    return dict(line.split("=", 1) for line in exports)


def recipes_of(page: Path) -> dict[str, str]:
    """Return the recipes of a page whose first line is a comment with a file name, by that name."""
    blocks = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    named = {block: re.match(r"# (\w+\.toml)\n", block) for block in blocks}
    return {name[1]: block for block, name in named.items() if name}


def _shell_lines(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def fill_home(home: Path, texts: Sequence[str]) -> None:
    """Write the files that pages name: notes, letters, minutes, a chapter, tables, grammars.

    All files are text, because a file is recognized by its content and not by its name.
    """
    for folder, chosen in (("notes", texts), ("letters", texts[20:])):
        (home / folder).mkdir()
        for number, text in enumerate(chosen):
            (home / folder / f"{number:03}.md").write_text(text, encoding="utf-8")
    for name, text in zip(("minutes.txt", "minutes.pdf", "chapter.epub"), texts, strict=False):
        (home / name).write_text(text, encoding="utf-8")
    person = {"name": {"type": "string"}, "age": {"type": "integer"}}
    schema = {"type": "object", "properties": person, "required": ["name", "age"]}
    (home / "person.json").write_text(json.dumps(schema), encoding="utf-8")
    (home / "sum.gbnf").write_text('root ::= number " + " number " = " number\nnumber ::= [0-9]+\n', encoding="utf-8")
    lines = [line.strip() for text in texts for line in text.splitlines() if len(line) > 40]
    with (home / "questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["question", "answer"], *pairwise(lines[:200])])
    tasks = {
        "pairs": [{"sentence_good": line, "sentence_bad": line[::-1], "field": line[0]} for line in lines[:6]],
        "follow": [{"prompt": "Name a fruit.", "checks": {"max_words": 1, "lowercase": True}}],
        "sums": [{"sum": f"{n} + 2", "result": n + 2, "level": "easy" if n < 3 else "hard"} for n in range(6)],
    }
    for name, rows in tasks.items():
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with (home / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["review"], *([line] for line in lines[:3])])
    with (home / "new-mails.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["subject", "body"], *(["News", line] for line in lines[:3])])
    with (home / "mails.csv").open("w", newline="", encoding="utf-8") as file:
        kinds = [("statement" if "statement" in line else "other") for line in lines[:400]]
        csv.writer(file).writerows([["text", "label"], *zip(lines[:400], kinds, strict=True)])


def fill_library(library: Path, texts: Sequence[str]) -> None:
    """Write HTML pages in the directories of `library.toml`, with the page and the words that commands look for."""
    pages = {f"manuals/{number:03}.html": text for number, text in enumerate(texts[2:])}
    pages |= {"handbook/es-ES/conclusion.html": texts[0], "downloads/merge.html": f"{texts[1]}\n\nAn octopus merge."}
    for name, text in pages.items():
        path = library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        paragraphs = "".join(f"<p>{html.escape(part)}</p>" for part in text.split("\n\n"))
        path.write_text(f"<!DOCTYPE html><html><body>{paragraphs}</body></html>", encoding="utf-8")


def words_as_run(command: Sequence[str], home: Path) -> list[str]:
    """Return the arguments of a command, with `~` expanded and with the options that shorten it."""
    words = [word.replace("~", str(home), 1) if word.startswith("~/") else word for word in command[1:]]
    return words if "--list" in words else [*words, *SHORT.get(command[1], [])]


def run_as_shown(command: Sequence[str], home: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command in `home` and return its output. A server gets one request and is terminated."""
    process = subprocess.Popen(
        [sys.executable, "-m", "groundup", *words_as_run(command, home)],
        cwd=home,
        env={**os.environ, "HOME": str(home), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if command[1] in _SERVERS:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        url = json.loads(line)["url"]
        assert _status(url if command[1] == "studio" else f"{url}/health") in ({200, 401} if environment else {200})
        process.terminate()
    output, errors = process.communicate("Hello\n")
    assert process.returncode == 0, f"{shlex.join(command)}\n{errors}"
    check_output(command, output)
    return output


def check_output(command: Sequence[str], output: str) -> None:
    """Require a result on stdout if the command prints one and does not write it to a file."""
    if command[1] in _PRINTING and "--out" not in command:
        # A model that was trained for seconds may end its text at once; then the line is empty.
        assert output if command[1] == "generate" else output.strip(), shlex.join(command)


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
