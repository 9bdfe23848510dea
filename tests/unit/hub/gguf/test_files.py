"""groundup's files read by the gguf library, and files of the gguf library read by groundup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize

from groundup.hub.gguf import FILE_TYPES, FileType, GgufFile, GgufModel, write_gguf
from groundup.hub.gguf.types import READABLE
from groundup.model import FAMILIES, ModelConfig
from groundup.model.config import RopeScaling

State = dict[str, torch.Tensor]
Configs = dict[str, ModelConfig]
Maker = Callable[[ModelConfig], State]
TOKENS = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["<|endoftext|>", "Ġthe", "é"],
    "tokenizer.ggml.token_type": np.array([3, 1, 1], np.int32),
    "tokenizer.ggml.scores": [-1.5, 0.0, 2.0],
    "tokenizer.ggml.precompiled_charsmap": np.array([0, 255], np.uint8),
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": "{{ messages }}",
    "tokenizer.ggml.merges": [],
}
# Relative error (root mean square) of normally distributed weights; 4-bit files contain tensors of 6 and 8 bits.
ERRORS: dict[FileType, float] = {
    "f32": 0,
    "f16": 3e-4,
    "bf16": 2.5e-3,
    "q8_0": 8e-3,
    "q4_0": 0.12,
    "q4_1": 0.09,
    "q4_k": 0.10,
}


def neighbours(rows: np.ndarray, heads: int) -> np.ndarray:
    """Permute query and key rows as llama.cpp requires: feature i is next to feature i + head_dim / 2."""
    head_dim = rows.shape[0] // heads
    order = [
        head * head_dim + side * head_dim // 2 + i
        for head in range(heads)
        for i in range(head_dim // 2)
        for side in (0, 1)
    ]
    return rows[order]


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gguf_library_reads_written_files(
    tmp_path: Path, configs: Configs, random_state: Maker, family: str, file_type: FileType
) -> None:
    config = configs[family]
    state = random_state(config)
    written = write_gguf(tmp_path / "m.gguf", config, state, TOKENS, file_type, name="tiny")
    reader = GGUFReader(tmp_path / "m.gguf")
    found = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    assert {tensor.name: tensor.tensor_type.name for tensor in reader.tensors} == written.types
    layer = "model.layers.1."
    q = state[layer + "self_attn.q_proj.weight"].numpy()
    norm = state[layer + ("post_attention_layernorm" if family == "olmo2" else "input_layernorm") + ".weight"].numpy()
    if family in ("llama", "mistral", "granite", "smollm3"):
        q = neighbours(q, config.n_heads)
    if family in ("gemma2", "gemma3"):
        norm = norm + 1
    fused = family in ("gpt2", "gpt_neox", "phi3")
    if fused:
        q = np.concatenate([state[f"{layer}self_attn.{part}_proj.weight"].numpy() for part in "qkv"])
    expected = {
        "token_embd.weight": state["model.embed_tokens.weight"].numpy(),
        "blk.1.attn_qkv.weight" if fused else "blk.1.attn_q.weight": q,
        "blk.1.ffn_down.weight": state[layer + "mlp.down_proj.weight"].numpy(),
    }
    for name, values in expected.items():
        error = np.sqrt(np.square(found[name] - values).mean() / np.square(values).mean())
        assert error <= ERRORS[file_type], name
    their_norm = "blk.1.post_attention_norm.weight" if family == "olmo2" else "blk.1.attn_norm.weight"
    np.testing.assert_array_equal(found[their_norm], norm)  # fp32 in every file.
    assert ("output.weight" in found) is not config.tie_embeddings
    assert reader.fields["general.architecture"].contents() == (
        {"mistral": "llama", "gpt_neox": "gptneox"}.get(family, family)
    )
    assert reader.fields["general.name"].contents() == "tiny"
    for key, value in TOKENS.items():
        if isinstance(value, list) and not value:
            assert key not in reader.fields
        else:
            assert reader.fields[key].contents() == (value.tolist() if isinstance(value, np.ndarray) else value)
    assert reader.fields["tokenizer.ggml.precompiled_charsmap"].types[-1].name == "UINT8"


@pytest.mark.parametrize("family", FAMILIES)
def test_written_files_are_read_back(tmp_path: Path, configs: Configs, random_state: Maker, family: str) -> None:
    config = configs[family]
    state = random_state(config)
    write_gguf(tmp_path / "m.gguf", config, state, TOKENS, "f32")
    model = GgufModel(tmp_path / "m.gguf")
    assert model.config == config
    assert model.metadata["tokenizer.ggml.tokens"] == TOKENS["tokenizer.ggml.tokens"]
    half = model.state(torch.bfloat16)
    for name, tensor in model.state().items():
        exact = family not in ("gemma2", "gemma3") or "norm" not in name  # The export adds 1 and rounds once.
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0 if exact else 3e-7)
        assert half[name].dtype == torch.bfloat16
    assert set(model.state()) == set(state)
    whole = dict(model.state())
    assert (
        whole["lm_head.weight"] is whole["model.embed_tokens.weight"]
    ) == config.tie_embeddings  # Shared, not copied.


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("linear", 8.0),
        RopeScaling("yarn", 4.0, original_context_length=32),
        RopeScaling("yarn", 4.0, original_context_length=32, attention_factor=1.25),
        RopeScaling("llama3", 8.0, original_context_length=8192),
        RopeScaling("llama3", 32.0, original_context_length=8192),
        RopeScaling("llama3", 4.0, original_context_length=2048, low_freq_factor=1.0, high_freq_factor=6.0),
    ],
    ids=str,
)
def test_rope_scaling_is_read_back(tmp_path: Path, configs: Configs, random_state: Maker, scaling: RopeScaling) -> None:
    """GGUF has no key for the llama3 scaling, only its divisors."""
    config = replace(configs["llama"], head_dim=64, rope_theta=500_000.0, rope_scaling=scaling)
    write_gguf(tmp_path / "m.gguf", config, random_state(config), TOKENS, "f32")
    assert GgufModel(tmp_path / "m.gguf").config == config


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name)
def test_every_type_is_read_like_the_gguf_library(tmp_path: Path, kind: object) -> None:
    """Random blocks in each supported type; rows are dequantized in chunks and must not mix."""
    member = GGMLQuantizationType[kind.name]  # type: ignore[attr-defined]
    block, block_bytes = GGML_QUANT_SIZES[member]
    rows = np.random.default_rng(3).integers(0, 60, (5, 512 // block * block_bytes), np.uint8)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("t", rows, raw_dtype=member)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GgufFile(tmp_path / "m.gguf").read("t")
    np.testing.assert_array_equal(read.numpy(), dequantize(rows, member).reshape(5, 512))


def test_tensors_are_mapped_and_cannot_change_the_file(tmp_path: Path, configs: Configs, random_state: Maker) -> None:
    write_gguf(tmp_path / "m.gguf", configs["llama"], random_state(configs["llama"]), TOKENS, "f32")
    before = (tmp_path / "m.gguf").read_bytes()
    file = GgufFile(tmp_path / "m.gguf")
    first, again = file.read("output.weight"), file.read("output.weight")
    assert first.data_ptr() == again.data_ptr()  # A view of the file, not a copy.
    first.zero_()
    assert (tmp_path / "m.gguf").read_bytes() == before
