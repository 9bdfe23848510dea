"""`groundup bench` compares a model with llama.cpp on a GGUF file of the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from groundup.cli import cli
from groundup.commands import export_gguf
from groundup.core.console import Console

pytestmark = pytest.mark.interop
pytest.importorskip("xllamacpp", reason="pip install '.[interop]'")


def test_both_programs_run_the_same_tests(our_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")  # not llama-bench
    file = tmp_path / "model.gguf"
    export_gguf.run(
        export_gguf.ExportGgufConfig(model=our_model, out=file, type="q8_0", verify=False), console=Console(quiet=True)
    )
    sizes = ("--prompt-tokens", 32, "--depth", 16, "--batch-size", 1, "--batch-size", 3, "--output-tokens", 8)
    words = ["bench", our_model, *sizes, "--rounds", 2, "--gguf", file, "--json"]
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code == 0, result.output
    figures: dict[str, set[tuple[str, str, int]]] = {}
    for each in json.loads(result.stdout)["results"]:
        figures.setdefault(each["engine"].split()[0], set()).add((each["test"], each["figure"], len(each["rounds"])))
        assert each["median"] > 0
    assert figures["groundup"] == figures["llama.cpp"]
    assert len(figures["groundup"]) == 6
    file.write_bytes(b"GGUF")
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code != 0
