"""Run the commands and the Python code of docs/learn with SmolLM2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from as_shown import ROOT, commands_of, fill_home, run_as_shown

pytestmark = pytest.mark.interop

SETUP = """
groundup collect --folder ~/notes --out runs/quickstart/corpus
groundup tokenize runs/quickstart/corpus --out runs/quickstart/tokens
groundup pretrain runs/quickstart/tokens --out runs/quickstart/base
groundup finetune instruct questions.csv --model runs/quickstart/base --out runs/quickstart/chat
groundup finetune classify mails.csv --model runs/quickstart/base --out runs/quickstart/classifier
"""


def lessons() -> Iterator[Path]:
    """Yield the lessons in the order of the navigation, because later lessons use the outputs of earlier ones."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in re.findall(r"\blearn/[\w-]+\.md$", navigation, re.MULTILINE):
        yield ROOT / "docs" / name


@pytest.fixture
def home(tmp_path: Path, real_documents: list[str], smollm2: Path) -> Path:
    """A home directory with the files that the lessons name, a run like the quickstart's, and SmolLM2."""
    fill_home(tmp_path, real_documents)
    (tmp_path / "notes" / "miltondata.md").write_text(f"Of disobedience.\n\n{real_documents[0]}", encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(smollm2.resolve(), target_is_directory=True)
    for line in SETUP.strip().splitlines():
        run_as_shown(line.split(), tmp_path)
    return tmp_path


def test_the_commands_of_the_lessons(home: Path) -> None:
    ran = set()
    for lesson in lessons():
        for command in commands_of(lesson):
            if command[1] == "import":  # the fixture has imported the model
                continue
            run_as_shown(command, home)
            ran.add(command[1])
    assert ran >= {"collect", "tokenize", "pretrain", "finetune", "evaluate", "compare", "report", "apps", "studio"}
    assert (home / "runs" / "notes" / "merged" / "model.safetensors").is_file()
    assert (home / "quickstart.gguf").is_file()


def test_the_python_of_the_lessons(home: Path) -> None:
    blocks = [
        block
        for lesson in lessons()
        for block in re.findall(r"^```python\n(.*?)^```$", lesson.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    ]
    assert blocks
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], cwd=home, env=os.environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
