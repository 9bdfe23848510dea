"""Adapters on disk: round trips, and malicious files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from groundup.core.errors import FormatError
from groundup.hub.adapters import load_adapter, save_adapter
from groundup.model import Transformer
from groundup.model.lora import LoRA, LoRALinear, add_lora, fuse_lora, lora_layers

IDS = torch.arange(40).view(2, 20)
MakeModel = Callable[..., Transformer]


def randomized(model: Transformer, lora: LoRA) -> Transformer:
    add_lora(model, lora)
    generator = torch.Generator().manual_seed(5)
    for layer in lora_layers(model).values():
        layer.lora_B.data.normal_(std=0.2, generator=generator)
    return model


@pytest.fixture
def adapter(tiny_model: MakeModel, tmp_path: Path) -> Path:
    save_adapter(tmp_path, randomized(tiny_model(64), LoRA(rank=4, targets=("q_proj", "down_proj"))), base="runs/base")
    return tmp_path


@pytest.mark.parametrize(
    "lora",
    [
        LoRA(rank=3, alpha=5),
        LoRA(rank=2, targets=("q_proj", "v_proj")),
        LoRA(rank=4, rank_stabilized=True, targets=("layers.1.mlp.up_proj", "o_proj")),
    ],
    ids=["all", "some", "names"],
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_saved_adapters_are_loaded_unchanged(tiny_model: MakeModel, tmp_path: Path, family: str, lora: LoRA) -> None:
    """GPT-2's three projections are one layer on disk: an adapter of one must not change the other two."""
    shape = {"family": family, "n_kv_heads": 4}
    model = randomized(tiny_model(64, **shape), lora)
    save_adapter(tmp_path, model)
    again = tiny_model(64, **shape)
    untouched = {name: tensor.clone() for name, tensor in again.state_dict().items()}
    load_adapter(tmp_path, again)
    torch.testing.assert_close(again(IDS), model(IDS), atol=1e-5, rtol=0)
    for name, layer in lora_layers(model).items():
        read = lora_layers(again)[name]
        torch.testing.assert_close(read.delta(), layer.delta(), atol=1e-6, rtol=0)
        assert read.lora_A.shape == layer.lora_A.shape
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in untouched.items())
    unmerged = again(IDS)
    fuse_lora(again)
    torch.testing.assert_close(again(IDS), unmerged, atol=1e-5, rtol=0)


def test_config_and_tensors_have_peft_names(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 32, "runs/base")
    names = load_file(adapter / "adapter_model.safetensors")
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names


def refused(directory: Path, model: Transformer, said: str) -> None:
    """The model must stay unchanged, not half adapted."""
    with pytest.raises(FormatError, match=said):
        load_adapter(directory, model)
    assert not lora_layers(model)


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 8}, "with rank 8 and this model, its shape must be"),
        ({"r": 10**12}, "with rank 1000000000000"),
        ({"r": -1}, "rank must be positive"),
        ({"r": "4"}, "rank must be positive"),
        ({"r": True}, "rank must be positive"),
        ({"lora_alpha": float("nan")}, "alpha must be finite"),
        ({"lora_alpha": float("inf")}, "alpha must be finite"),
        ({"lora_alpha": [32]}, "alpha must be finite"),
        ({"rank_pattern": {"(a+)+$": 4}}, "name of a layer"),
        ({"rank_pattern": {"q_proj": 2}}, "with rank 2"),
        ({"alpha_pattern": "q_proj"}, "alpha must be finite|name of a layer"),
        ({"use_dora": True}, "standard LoRA"),
        ({"bias": "all"}, "standard LoRA"),
        ({"bias": ["none"]}, "standard LoRA"),
        ({"peft_type": "LOHA"}, "standard LoRA"),
        ({"init_lora_weights": "pissa"}, "standard LoRA"),
        ({"modules_to_save": ["lm_head"]}, "standard LoRA"),
        ({"layer_replication": [[0, 2]]}, "standard LoRA"),
        ({"what_comes_next_year": {"x": 1}}, "standard LoRA"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_or_unsupported_configs_are_rejected(
    tiny_model: MakeModel, adapter: Path, changes: dict[str, Any], said: str
) -> None:
    change_config(adapter, **changes)
    refused(adapter, tiny_model(64), said)


def test_variants_of_the_same_computation_are_supported(tiny_model: MakeModel, adapter: Path) -> None:
    model = tiny_model(64)
    change_config(adapter, lora_dropout=0.1, init_lora_weights="gaussian", use_rslora=True, r=4, lora_alpha=16)
    load_adapter(adapter, model)
    layer = next(iter(lora_layers(model).values()))
    assert isinstance(layer, LoRALinear)
    assert layer.scale == 8


def test_tensors_of_unknown_layers_or_other_models_are_rejected(tiny_model: MakeModel, adapter: Path) -> None:
    refused(adapter, tiny_model(64, dim=48), "and this model, its shape must be")
    refused(adapter, tiny_model(64, n_layers=1), r"layers\.1")
    refused(adapter, tiny_model(64, family="gpt2", n_kv_heads=4), "this gpt2 model has 8 layers")
    path = adapter / "adapter_model.safetensors"
    tensors = load(path.read_bytes())  # In memory, because the file is overwritten.
    q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    for name, tensor, said in (
        ("base_model.model.lm_head.lora_A.weight", torch.ones(4, 32), "lm_head"),
        (
            "base_model.model.model.embed_tokens.lora_embedding_A",
            torch.ones(4, 64),
            "lora_A and lora_B of linear layers",
        ),
        ("../../outside.lora_A.weight", torch.ones(4, 32), "lora_A and lora_B of linear layers"),
        (q, torch.full((4, 32), float("nan")), "not finite"),
        (q, torch.ones(4, 32, 1), "its shape must be"),
        (q, torch.ones(0, 32), "its shape must be"),
    ):
        save_file(tensors | {name: tensor}, path)
        refused(adapter, tiny_model(64), said)
    save_file({name: tensor for name, tensor in tensors.items() if name != q}, path)
    refused(adapter, tiny_model(64), "missing")
    save_file({}, path)
    refused(adapter, tiny_model(64), "no tensors")


def test_damaged_files_and_pickles_are_rejected(tiny_model: MakeModel, adapter: Path) -> None:
    model, path = tiny_model(64), adapter / "adapter_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    refused(adapter, model, "invalid safetensors file")
    path.write_bytes((2**62).to_bytes(8, "little") + content[8:])
    refused(adapter, model, "invalid safetensors file")
    path.unlink()
    (adapter / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    refused(adapter, model, "is a pickle")
    path.write_bytes(content)
    for text in ("[" * 5, "[]", '{"r": ', "{" + '"a": 1, ' * 200_000 + '"b": 2}'):
        (adapter / "adapter_config.json").write_text(text, encoding="utf-8")
        refused(adapter, model, "valid JSON|JSON object|the maximum is")
