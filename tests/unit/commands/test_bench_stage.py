"""`groundup bench` prints tables, or JSON with all that a bug report needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from groundup.cli import cli

SMALL = ("--prompt-tokens", "16", "--depth", "8", "--batch-size", "2", "--output-tokens", "4", "--rounds", "2")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def bench(*words: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, words)])


def test_json_has_results_and_environment(base_directory: Path) -> None:
    result = bench(base_directory, *SMALL, "--threads", 1, "--json")
    assert result.exit_code == 0, result.output
    facts: dict[str, Any] = json.loads(result.stdout)
    by_figure = {each["figure"]: each for each in facts["results"]}
    assert by_figure.keys() == {"prefill", "first_token", "decode", "with_prefill"}
    assert by_figure["decode"]["batch_size"] == 2
    assert all(len(each["rounds"]) == 2 and each["median"] > 0 for each in facts["results"])
    assert facts["settings"]["threads"] == 1
    assert {"cpu", "cpus", "memory_bytes"} <= facts["machine"].keys()
    assert {"python", "torch"} <= facts["versions"].keys()
    assert facts["model"]["shape"]["n_layers"] > 0
    assert next(iter(facts["memory_bytes"].values()))["weights"] > 0


def test_tables_are_markdown_and_impossible_tests_are_named(base_directory: Path) -> None:
    result = bench(base_directory, *SMALL, "--prompt-tokens", 1_000_000, "--dtype", "float32")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("| engine")
    assert set(lines[1]) <= set("|-: ")
    assert len({len(line) for line in lines[:4]}) == 1
    assert "| groundup float32 | tg4 @ 8, batch 2 |" in result.stdout
    assert "Skipped pp1000000: the context of the model" in result.stderr
    result = bench(base_directory, "--prompt-tokens", 1_000_000, "--depth", 1_000_000)
    assert result.exit_code != 0


def test_quality_of_a_text(base_directory: Path, tmp_path: Path, real_documents: list[str]) -> None:
    (tmp_path / "text.txt").write_text(real_documents[0])
    words = ("--quality", "--texts", tmp_path / "text.txt", "--quality-tokens", 200, "--dtype", "float32")
    facts = json.loads(bench(base_directory, *words, "--json").stdout)
    assert facts["quality"] == []  # float32 is the reference
    (tmp_path / "text.txt").write_text("")
    assert bench(base_directory, *words).exit_code != 0
