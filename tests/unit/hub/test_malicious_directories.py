"""Damaged, unsupported or malicious model directories are rejected by name, quickly, and in little memory."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from groundup.core.errors import FormatError, GroundupError
from groundup.hub import SpecialTokenIds, load_model, save_model, save_weights
from groundup.hub.resolve import resolve_model
from groundup.model import ModelConfig, Transformer

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

NEOX: dict[str, Any] = {"model_type": "gpt_neox", "hidden_act": "gelu", "attention_bias": True}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    model = Transformer(ModelConfig("llama", 32, 2, 4, 2, 8, 64, 97, 32, tie_embeddings=False))
    save_model(tmp_path / "model", model, bos_id=0, eos_id=0)
    return tmp_path / "model"


def edit(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / CONFIG).read_text()) | changes
    (directory / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 10**9}, "n_layers = 1000000000"),
        ({"num_hidden_layers": 9_999}, "model.layers.2"),
        ({"hidden_size": 10**12}, "dim = 1000000000000"),
        ({"hidden_size": 2**28}, "shape"),
        ({"vocab_size": 2**40}, "vocab_size"),
        ({"vocab_size": 2**28}, "embed_tokens"),
        ({"intermediate_size": 2**27}, "shape"),
        ({"num_attention_heads": 2**20, "head_dim": 2**16}, "head_dim = 65536"),
        ({"head_dim": 2**27}, "head_dim = 134217728"),
        ({"max_position_embeddings": 10**15}, "context_length"),
        ({"hidden_size": "32"}, "dim = '32'"),
        ({"num_attention_heads": 0, "head_dim": None}, "n_heads = 0"),
        ({"hidden_size": -1, "head_dim": None}, "dim = -1"),
        ({"rms_norm_eps": None}, "norm_eps = None"),
        ({"hidden_size": "absent"}, "hidden_size"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": "many"}}, "many"),
        ({"rope_scaling": [1, 2]}, "rope_scaling"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"attention_bias": True}, "q_proj.bias"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"num_local_experts": 8}, "num_local_experts"),
        ({"model_type": "mixtral", "num_local_experts": 8}, "known architectures.*num_local_experts"),
        ({"model_type": "phi3"}, "qkv_proj"),
        ({"model_type": "phi3", "rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, "longrope"),
        (NEOX | {"use_parallel_residual": False}, "use_parallel_residual = False"),
        (NEOX | {"rope_parameters": None, "rotary_pct": 0.05}, "rotary_fraction = 0.05"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "rotary_layers has 1 values"),
        ({"model_type": "gemma2", "layer_types": ["chunked"]}, "layer_types"),
        ({"model_type": "granite", "attention_multiplier": 0.0}, "attention_multiplier"),
        ({"model_type": "granite", "logits_scaling": "8"}, "logits_scaling"),
        ({"logits_scaling": 8.0}, "logits_scaling"),
        ({"model_type": ["llama"]}, "model_type"),
    ],
    ids=str,
)
def test_a_mismatched_config_is_rejected_by_name(directory: Path, changes: dict[str, Any], named: str) -> None:
    edit(directory, **changes)
    started = time.perf_counter()
    with pytest.raises(FormatError, match=named):
        load_model(directory)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("text", ["[1, 2]", "[" * 100_000, '{"n": ' + "9" * 10_000 + "}", '"', "\udcff"], ids=len)
def test_an_invalid_config_is_rejected(directory: Path, text: str) -> None:
    (directory / CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FormatError, match=r"config\.json"):
        load_model(directory)


def test_implausible_sizes_allocate_no_memory(directory: Path) -> None:
    """A rejection must not first allocate the claimed size."""
    edit(directory, hidden_size=2**20, intermediate_size=2**24, vocab_size=2**24, head_dim=None)
    program = (
        "import resource, sys; from pathlib import Path; from groundup.hub import load_model\n"
        "from groundup.core.errors import FormatError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: load_model(Path(sys.argv[1]))\n"
        "except FormatError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    grown = subprocess.run([sys.executable, "-c", program, directory], capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 50_000 * (1 if sys.platform == "linux" else resource.getpagesize())


def header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    fields = json.loads(data[8 : 8 + length])
    change(fields)
    text = json.dumps(fields).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_invalid_headers_are_rejected(directory: Path) -> None:
    path = directory / WEIGHTS
    whole = path.read_bytes()
    last = "model.norm.weight"

    def longer(fields: dict[str, Any]) -> None:
        fields[last]["shape"], (start, _) = [2**40], fields[last]["data_offsets"]
        fields[last]["data_offsets"] = [start, start + 2**42]

    def overlapping(fields: dict[str, Any]) -> None:
        fields[last]["data_offsets"] = [0, 128]

    def integers(fields: dict[str, Any]) -> None:
        fields[last]["dtype"] = "I32"

    for change in (longer, overlapping, integers):
        path.write_bytes(whole)
        header(path, change)
        with pytest.raises(FormatError, match=r"model(\.safetensors|.*norm)"):
            load_model(directory)
    for data in (struct.pack("<Q", 2**60) + whole[8:], whole[:-1], whole[:4], b"", b"\x80\x04" + whole):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"model\.safetensors"):
            load_model(directory)


def test_unexpected_tensors_are_rejected_by_name(directory: Path) -> None:
    tensors = load((directory / WEIGHTS).read_bytes())  # In memory, because the file is overwritten.
    name = "model.layers.1.mlp.up_proj.weight"
    for changed, named in (
        ({**tensors, name: tensors[name][:-1].clone()}, "up_proj.*shape"),
        ({key: tensor for key, tensor in tensors.items() if key != name}, "no tensor.*up_proj"),
        (tensors | {"model.layers.0.self_attn.q_proj.lora_A": torch.ones(2)}, "lora_A"),
    ):
        save_file(changed, directory / WEIGHTS)
        with pytest.raises(FormatError, match=named):
            load_model(directory)


def test_a_tied_head_that_differs_is_rejected(directory: Path) -> None:
    """Releases of transformers differ in which of the two they use."""
    edit(directory, tie_word_embeddings=True)
    with pytest.raises(FormatError, match="tie_word_embeddings"):
        load_model(directory)
    tensors = load((directory / WEIGHTS).read_bytes())  # In memory, because the file is overwritten.
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, directory / WEIGHTS)
    assert load_model(directory).config.tie_embeddings


@pytest.fixture
def sharded(directory: Path) -> Path:
    model = load_model(directory)
    save_weights(directory, model.config, model.state_dict(), SpecialTokenIds(0, 0), shard_bytes=20_000)
    assert not (directory / WEIGHTS).exists()
    load_model(directory)
    return directory


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "sub/x.safetensors", "ABSOLUTE", "..", "", "..\\secret", "link"]
)
def test_an_index_with_outside_paths_is_rejected(sharded: Path, name: str) -> None:
    outside = sharded.parent / "secret.safetensors"
    first = next(iter(sorted(sharded.glob("*.safetensors"))))
    outside.write_bytes(first.read_bytes())
    (sharded / "sub").mkdir()
    (sharded / "sub" / "x.safetensors").write_bytes(first.read_bytes())
    (sharded / "link").symlink_to(outside)
    index = json.loads((sharded / INDEX).read_text())
    said = str(outside) if name == "ABSOLUTE" else name
    index["weight_map"] = {key: said if file == first.name else file for key, file in index["weight_map"].items()}
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(FormatError, match="index may only list files of its own directory"):
        load_model(sharded)


def test_links_in_a_hub_cache_are_followed(sharded: Path) -> None:
    """In the Hugging Face cache, files are links into `blobs`, two levels up."""
    repository = sharded.parent / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in sharded.iterdir():
        (repository / "blobs" / file.name).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert torch.equal(load_model(snapshot).lm_head.weight, load_model(sharded).lm_head.weight)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"lm_head.weight": 7}}'])
def test_an_invalid_index_is_rejected(sharded: Path, index: str) -> None:
    (sharded / INDEX).write_text(index)
    with pytest.raises(FormatError, match="weight_map"):
        load_model(sharded)


def test_missing_shards_and_wrong_places_are_named(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    swapped = {key: files[0] if file == files[1] else file for key, file in index["weight_map"].items()}
    (sharded / INDEX).write_text(json.dumps({"weight_map": swapped}))
    with pytest.raises(FormatError, match="no tensor"):
        load_model(sharded)
    (sharded / INDEX).write_text(json.dumps(index))
    (sharded / files[-1]).unlink()
    with pytest.raises(FormatError, match=files[-1]):
        load_model(sharded)


def test_sharded_weights_are_recognized_as_a_model(sharded: Path) -> None:
    assert resolve_model(sharded.parent) == sharded


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_rejected_by_name(tmp_path: Path, file: str) -> None:
    (tmp_path / CONFIG).write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / file).write_bytes(b"\x80\x04.")
    for read in (load_model, resolve_model):
        with pytest.raises(FormatError, match=f"{file} is a pickle.*save_pretrained"):
            read(tmp_path)


def test_unexpected_weights_are_not_dropped_silently(tmp_path: Path) -> None:
    model = Transformer(ModelConfig("qwen3", 32, 1, 4, 2, 8, 64, 97, 32))
    weights = model.state_dict() | {"model.layers.0.self_attn.q_proj.lora_a": torch.ones(2, 32)}
    with pytest.raises(GroundupError, match="lora_a"):
        save_weights(tmp_path, model.config, weights, SpecialTokenIds(0, 0))
