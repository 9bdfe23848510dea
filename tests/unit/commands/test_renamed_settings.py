"""Old names of settings cause an error that contains the new name. Outputs with old names stay finished."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.commands.compare import CompareConfig
from groundup.commands.evaluate import EvaluateConfig
from groundup.commands.export_gguf import ExportGgufConfig
from groundup.commands.import_model import ImportConfig
from groundup.commands.merge import MergeConfig
from groundup.core.artifact import fingerprint_of
from groundup.core.config import Config, load
from groundup.core.errors import ConfigError

COMPARED = {"base": "a", "fine_tuned": "b"}


@pytest.mark.parametrize(
    ("config", "keys", "new"),
    [
        (CompareConfig, COMPARED | {"examples": 3}, "max_examples"),
        (CompareConfig, COMPARED | {"general_bytes": 3}, "max_general_bytes"),
        (EvaluateConfig, {"model": "a", "compressors_read": 3}, "max_compressor_bytes"),
        (ExportGgufConfig, {"model": "a", "out": "b", "gate": False}, "verify"),
        (ImportConfig, {"path": "a", "out": "b", "gate": False}, "verify"),
        (MergeConfig, {"adapter": "a", "out": "b", "gate": False}, "verify"),
    ],
)
def test_the_error_names_the_new_setting(config: type[Config], keys: dict[str, Any], new: str) -> None:
    with pytest.raises(ConfigError, match=f"is now {new}"):
        load(config, keys)


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        ("compare", {"examples": 3, "general_bytes": 4}, {"max_examples": 3, "max_general_bytes": 4}),
        ("evaluate", {"compressors_read": 3}, {"max_compressor_bytes": 3}),
        ("export.gguf", {"gate": True}, {"verify": True}),
    ],
)
def test_fingerprints_stay_the_same(stage: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    assert fingerprint_of(stage, new, {}) == fingerprint_of(stage, old, {})
