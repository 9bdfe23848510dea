"""A GGUF file gets its final name only after its verification, and the reported results describe this file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from groundup.commands import import_model
from groundup.commands.export_gguf import ExportGgufConfig, run
from groundup.core.console import Console
from groundup.core.errors import ConfigError, GroundupError
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the comparison with other engines. The tests in tests/interop use llama.cpp."""
    from groundup.evaluation.verification import gguf, imports, peers

    for module in (gguf, imports, peers):  # A module that is imported later would keep the mock.
        monkeypatch.setattr(module, "missing", lambda engine: f"{engine} is not installed")


@pytest.fixture(scope="module")
def sharp_directory(
    tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    model = tiny_model(tokenizer.vocab_size, context_length=128, dim=64, head_dim=16)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    directory = tmp_path_factory.mktemp("sharp") / "model"
    save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(directory)
    return directory


def test_a_file_with_its_modelfile_and_record(sharp_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    made = run(ExportGgufConfig(model=sharp_directory, out=out, type="q8_0"), console=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Modelfile", "m.gguf", "m.gguf.json"]
    fields = gguf.GGUFReader(out).fields  # This reader is independent of our code.
    assert fields["general.architecture"].contents() == "qwen3"
    assert fields["tokenizer.ggml.pre"].contents() == "qwen2"
    assert "FROM ./m.gguf\n" in (tmp_path / "Modelfile").read_text()
    (check,) = made.facts["files"]["q8_0"]["verification"]["checks"]
    assert check["who"] == "read back" and 0.9 < check["top1"] <= 1 and check["kl"] > 0
    assert json.loads((tmp_path / "m.gguf.json").read_text())["facts"]["files"]["q8_0"]["bytes"] == out.stat().st_size
    again = run(ExportGgufConfig(model=sharp_directory, out=out, type="q8_0"), console=QUIET)
    assert again.finished_at == made.finished_at


def test_norms_stored_with_an_offset_of_one_pass(
    tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The export and the import round the norms of Gemma models. This rounding is not an error."""
    shape = {"dim": 64, "head_dim": 16, "context_length": 128, "sliding_window": 64, "tie_embeddings": True}
    model = tiny_model(tokenizer.vocab_size, family="gemma3", **shape)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    save_model(tmp_path / "model", model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(tmp_path / "model")
    run(ExportGgufConfig(model=tmp_path / "model", out=tmp_path / "m.gguf", type="f32"), console=QUIET)
    assert (tmp_path / "m.gguf").is_file()


def test_all_types_are_compared(sharp_directory: Path, tmp_path: Path) -> None:
    made = run(ExportGgufConfig(model=sharp_directory, out=tmp_path / "all", type="all"), console=QUIET)
    files = made.facts["files"]
    assert list(files) == ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k"]
    assert files["f32"]["verification"]["equal_bit_for_bit"] and not files["q4_0"]["verification"]["equal_bit_for_bit"]
    kl = {kind: facts["verification"]["checks"][0]["kl"] for kind, facts in files.items() if kind != "f32"}
    assert kl["f16"] < kl["bf16"] < kl["q8_0"] < min(kl["q4_0"], kl["q4_1"], kl["q4_k"])
    assert files["f32"]["bytes"] > files["f16"]["bytes"] > files["q8_0"]["bytes"] > files["q4_0"]["bytes"]
    # Rows of 64 values are not a multiple of 256, so a fallback type is used for each matrix, and the report lists it.
    assert {fallback["intended"] for fallback in files["q4_k"]["fallbacks"]} == {"Q4_K", "Q6_K"}
    assert not files["q8_0"]["fallbacks"]


def test_an_exported_file_can_be_imported(sharp_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    run(ExportGgufConfig(model=sharp_directory, out=out, type="f32", verify=False), console=QUIET)
    back = tmp_path / "back"
    made = import_model.run(import_model.ImportConfig(path=str(out), out=back), console=QUIET)
    assert made.facts["dtype"] == "float32" and made.facts["verification"]["absent"]
    from groundup.hub import load_model

    ours, theirs = load_model(sharp_directory).state_dict(), load_model(back).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)
    text = "Wie größer, 12345 こんにちは <|im_start|>\r\n\tx"
    assert Tokenizer.load(back).encode(text) == Tokenizer.load(sharp_directory).encode(text)


def test_a_damaged_export_keeps_the_old_file(
    sharp_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import groundup.evaluation.verification.gguf as verification

    out, written = tmp_path / "m.gguf", verification.write_gguf
    out.write_bytes(b"an older file")

    def badly(path: Path, config: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        swapped = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate_proj.weight"
        mixed = dict(state) | dict(zip(swapped, (state[swapped[1]], state[swapped[0]]), strict=True))
        return written(path, config, mixed, *args, **kwargs)

    monkeypatch.setattr(verification, "write_gguf", badly)
    with pytest.raises(
        GroundupError, match=r"m\.gguf as \w+: model\.layers\.0\.mlp\.(up|gate)_proj\.weight has a relative error"
    ):
        run(ExportGgufConfig(model=sharp_directory, out=out, type="f16"), console=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert out.read_bytes() == b"an older file"


def test_a_users_modelfile_is_not_overwritten(sharp_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text("FROM llama3\n")
    run(ExportGgufConfig(model=sharp_directory, out=tmp_path / "m.gguf", verify=False), console=QUIET)
    assert (tmp_path / "Modelfile").read_text() == "FROM llama3\n"
    assert "FROM ./m.gguf\n" in (tmp_path / "m.Modelfile").read_text()


def test_invalid_output_paths_are_rejected(sharp_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    (tmp_path / "d.gguf").mkdir()
    for out, kind in ((tmp_path / "m.gguf", "all"), (tmp_path / "taken", "f16"), (tmp_path / "d.gguf", "f16")):
        with pytest.raises(ConfigError):
            run(ExportGgufConfig(model=sharp_directory, out=out, type=kind), console=QUIET)
