"""Run the commands of docs/cases with SmolLM2, on the data of the cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from as_shown import ROOT, commands_of, run_as_shown

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "cases" / "index.md"


@pytest.fixture
def home(tmp_path: Path, smollm2: Path) -> Path:
    (tmp_path / "docs").symlink_to(ROOT / "docs", target_is_directory=True)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(smollm2.resolve(), target_is_directory=True)
    return tmp_path


def test_the_commands_of_the_cases(home: Path) -> None:
    ran = {}
    for command in commands_of(PAGE):
        if command[1] != "import":  # the fixture has imported the model
            ran[" ".join(command)] = run_as_shown(command, home)
    quoted = next(text for command, text in ran.items() if "additional bag" in command and "--model" not in command)
    assert "60 euros" in quoted and "checked-baggage.txt" in quoted
    refused = next(text for command, text in ran.items() if "wireless" in command)
    assert "do not answer" in refused
    questions = [json.loads(line) for line in (home / "runs/education/questions.jsonl").read_text("utf-8").splitlines()]
    assert len(questions) == 20 and all("output" in row for row in questions)
    assert (home / "runs/telecom/summaries.csv").is_file()
