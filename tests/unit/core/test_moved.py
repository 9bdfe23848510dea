"""Imports of the previous release still work, and cause a warning that contains the new name."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from groundup.core.moved import MOVED, RENAMED

pytestmark = pytest.mark.filterwarnings("ignore:.* is now :DeprecationWarning")

USED = [
    ("groundup.checkpoint", "load_model", "groundup.hub"),
    ("groundup.checkpoint.resolve", "open_model", "groundup.hub.resolve"),
    ("groundup.checkpoint.state", "load_newest_state", "groundup.hub.training_state"),
    ("groundup.chat.formats", "ChatFormat", "groundup.inference.prompting"),
    ("groundup.errors", "GroundupError", "groundup.core.errors"),
    ("groundup.evals.beside_base", "compare_with_base", "groundup.evaluation.base_comparison"),
    ("groundup.evals.rendering", "fits", "groundup.inference.prompting"),
    ("groundup.examples", "read_conversations", "groundup.data"),
    ("groundup.exchange.source", "copy_notices", "groundup.hub.source"),
    ("groundup.exchange.peers", "missing", "groundup.evaluation.verification.peers"),
    ("groundup.generate", "Engine", "groundup.inference"),
    ("groundup.gguf.reading", "GgufModel", "groundup.hub.gguf.reading"),
    ("groundup.objectives", "NextToken", "groundup.train.objectives"),
    ("groundup.objectives.classification", "Classification", "groundup.train.objectives.classification"),
    ("groundup.objectives.classification", "predict", "groundup.inference.classification"),
    ("groundup.objectives.novelty", "Novelty", "groundup.inference.novelty"),
    ("groundup.parallel", "measure_machine", "groundup.kernels"),
    ("groundup.parallel", "ShardedOptimizer", "groundup.distributed"),
    ("groundup.planner.flops", "parameter_count", "groundup.model.flops"),
    ("groundup.stages.pretrain", "run", "groundup.commands.pretrain"),
    ("groundup.tokens", "TokenShards", "groundup.data"),
]


@pytest.mark.parametrize(("old", "name", "new"), USED)
def test_an_old_path_gives_the_same_object_and_warns(
    old: str, name: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} is now "):
        module = import_module(old)
    assert getattr(module, name) is getattr(import_module(new), name)


def test_a_renamed_class_is_found_under_its_old_name() -> None:
    for old in RENAMED:
        module, _, name = old.rpartition(".")
        assert getattr(import_module(f"groundup.{module}"), name)
    from groundup.train.objectives.classification import MultiLabelClassification

    assert import_module("groundup.objectives.classification").SeveralLabels is MultiLabelClassification


def test_all_new_modules_exist() -> None:
    for places in MOVED.values():
        for place in places:
            import_module(f"groundup.{place}")


def test_an_unknown_module_of_an_old_package_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"groundup\.generate\.no_such"):
        import_module("groundup.generate.no_such")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(ImportError, match="no_such"):
        exec("from groundup.parallel import no_such")
