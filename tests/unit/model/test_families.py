"""Family definitions: one module per family, without importing torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.core.errors import FormatError
from groundup.hub.config_json import read_config_json
from groundup.hub.gguf.hyperparameters import config_from_metadata
from groundup.model.families import FAMILIES, GUIDE
from groundup.train.initial_model import ShapeConfig

ROOT = Path(__file__).parents[3]
DECLARATIONS = ROOT / "src/groundup/model/families"


@pytest.mark.parametrize("arguments", [["--help"], ["model", "list"], ["model", "list", "--json"]], ids=" ".join)
def test_help_and_presets_import_no_torch(arguments: list[str]) -> None:
    """Importing torch takes seconds, which a list of names does not need."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "groundup", *arguments], capture_output=True, text=True, check=True
    )
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")]
    assert "groundup.cli.commands" in imported
    assert [name for name in imported if name.split(".")[0] == "torch"] == []


def test_no_other_module_compares_or_lists_names_of_families() -> None:
    """A new family once needed changes in nine files, because each of them compared names."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        if path.parent == DECLARATIONS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            compared = isinstance(node, ast.Compare) and any(
                isinstance(side, ast.Attribute | ast.Name | ast.Subscript) and "family" in ast.unparse(side).lower()
                for side in (node.left, *node.comparators)
            )
            names = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
            listed = isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict | ast.Subscript) and (
                len(set(FAMILIES) & {name for name in names if isinstance(name, str)}) > 2
            )
            if listed or (compared and set(FAMILIES) & set(names)):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert found == []


def test_a_definition_is_one_short_file() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in DECLARATIONS.glob("*.py")}
    assert {f"{name}.py" for name in FAMILIES} <= set(lengths)
    assert {name: lines for name, lines in lengths.items() if name not in ("base.py",) and lines > 250} == {}


def test_every_family_can_be_chosen_for_training() -> None:
    assert [ShapeConfig(family=name).family for name in FAMILIES] == list(FAMILIES)


def test_the_error_for_an_unknown_family_lists_the_supported_ones() -> None:
    with pytest.raises(FormatError) as config:
        read_config_json({"model_type": "mamba", "state_size": 16})
    with pytest.raises(FormatError) as metadata:
        config_from_metadata({"general.architecture": "mamba"}, {}, None)
    for caught, names in (
        (config, [family.huggingface.model_type for family in FAMILIES.values()]),
        (metadata, [family.gguf.architecture for family in FAMILIES.values() if family.gguf]),
    ):
        assert all(name in caught.value.rule for name in names)
        assert GUIDE in caught.value.fix
    assert (ROOT / GUIDE).is_file()
