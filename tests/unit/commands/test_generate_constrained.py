"""`groundup generate` with a schema, a regex, choices or a grammar."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from groundup.commands.generate import GenerateConfig, run
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError


def generated(model: Path, **settings: Any) -> str:
    """Return the text that the command generates."""
    config = GenerateConfig(model=model, prompt="The answer is", max_tokens=30, seed=0, temperature=1.0, **settings)
    return run(config, console=Console(quiet=True)).text


def test_each_option_constrains_the_output(base_directory: Path, tmp_path: Path) -> None:
    schema, grammar = tmp_path / "schema.json", tmp_path / "sum.gbnf"
    schema.write_text(json.dumps({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}))
    grammar.write_text('root ::= [0-9]+ "+" [0-9]+\n')
    assert isinstance(json.loads(generated(base_directory, json_schema=schema))["a"], int)
    assert re.fullmatch(r"\d+\+\d+", generated(base_directory, grammar=grammar))
    assert re.fullmatch("[a-f]{4}", generated(base_directory, regex="[a-f]{4}"))
    assert generated(base_directory, choice=("red", "green")) in ("red", "green")


def test_mistakes_are_explained(base_directory: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(DataError, match=r"broken\.json: not valid JSON"):
        generated(base_directory, json_schema=broken)
    with pytest.raises(DataError, match=r"none\.json"):
        generated(base_directory, json_schema=tmp_path / "none.json")
    with pytest.raises(ConfigError, match="--json-schema and --regex"):
        generated(base_directory, json_schema=broken, regex="a")
