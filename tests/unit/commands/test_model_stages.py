"""`groundup model list` and `show` report sizes and costs of published architectures and of models on disk."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from groundup.cli import cli
from groundup.commands.model_show import ModelShowConfig, run
from groundup.core.artifact import begin
from groundup.core.errors import ConfigError, DataError, FormatError
from groundup.hub import load_model
from groundup.hub.gguf import write_gguf


def shown(*words: str) -> str:
    result = CliRunner().invoke(cli, ["model", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def show(model: object) -> dict[str, Any]:
    return run(ModelShowConfig(model=str(model)))


def test_gpt3_has_the_numbers_of_its_paper() -> None:
    text = shown("show", "GPT3-175B")
    assert "96 layers, hidden size 12,288, 96 heads of 128, FFN size 49,152" in text
    assert "174,604,259,328" in text
    assert "sparse attention" in text
    facts = json.loads(shown("show", "gpt3-175b", "--json"))
    assert facts["flops_per_token"]["training"] == pytest.approx(3.14e23 / 300e9, rel=0.02)
    assert facts["memory_bytes"]["weights"]["bfloat16"] == 2 * 174_604_259_328
    # The KV cache per token has 2 x 96 layers x 12,288 values of 2 bytes.
    assert facts["memory_bytes"]["cache_per_token"]["bfloat16"] == 4_718_592
    assert facts["memory_bytes"]["training"] > 16 * 174_604_259_328


def test_the_list_is_a_table_or_json_lines() -> None:
    lines = shown("list", "qwen3").splitlines()
    assert len(lines) == 1 + 6
    assert len({len(line) for line in lines}) == 1
    records = [json.loads(line) for line in shown("list", "--json").splitlines()]
    sizes = {record["name"]: record["parameters"] for record in records}
    assert sizes["gpt2"] == 124_439_808
    assert len(sizes) >= 40
    with pytest.raises(ConfigError, match="Did you mean qwen3"):
        CliRunner().invoke(cli, ["model", "list", "qwen33-8b"], catch_exceptions=False, standalone_mode=False)


def test_a_run_shows_its_newest_model_with_tokenizer_and_provenance(base_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(base_directory, tmp_path / "run" / "base")
    facts = show(tmp_path / "run")
    model = load_model(base_directory)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert facts["stored"]["tensors"] == {"float32": len(model.state_dict())}
    assert facts["tokenizer"]["vocab_size"] == 1024
    assert not facts["tokenizer"]["chat_template"]
    assert "made_by" not in facts
    work = begin(tmp_path / "made", "pretrain", {}, {"tokens": "0123456789abcdef0123"})
    files = [Path(shutil.copy(path, tmp_path / "made")) for path in base_directory.iterdir()]
    work.finish({"tokens_seen": 5}, files)
    assert show(tmp_path / "made")["made_by"]["inputs"] == {"tokens": "0123456789abcdef0123"}
    assert "inputs           tokens 0123456789ab" in shown("show", str(tmp_path / "made"))


def test_a_gguf_file_shows_its_types(base_directory: Path, tmp_path: Path) -> None:
    model = load_model(base_directory)
    write_gguf(tmp_path / "model.gguf", model.config, model.state_dict(), {}, "f16")
    facts = show(tmp_path / "model.gguf")
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert facts["stored"]["tensors"]["F16"] > facts["stored"]["tensors"]["F32"] > 0
    assert "F16" in shown("show", str(tmp_path / "model.gguf"))


def test_a_missing_model_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean smollm2-135m"):
        show("smolm2-135m")
    with pytest.raises(ConfigError, match="Check the path"):
        show(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no language model"):
        show(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"\x80\x04pickle")
    with pytest.raises(FormatError, match="GGUF"):
        show(tmp_path / "model.bin")


def test_speed_and_memory_are_predicted_for_this_machine(base_directory: Path) -> None:
    text = shown("show", "gpt3-175b")
    assert re.search(r"float32 +does not fit: needs \d+ GB, this machine has \d", text)
    formats = {each["format"]: each for each in show(base_directory)["speed"]["formats"]}
    assert formats["float32"]["fits"]
    assert formats["float32"]["decode"] > 1
    assert "predicted speed" not in shown("show", "gpt3-175b", "--no-speed")
