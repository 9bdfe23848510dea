"""Models computed with the weights as they are stored: the same results, and no second copy in memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from family_shapes import small
from groundup.core.errors import FormatError
from groundup.hub import SpecialTokenIds, load_model, save_weights
from groundup.hub.gguf import FileType, write_gguf
from groundup.inference.runner import NativeRunner, SequenceStep, prepare_for_torch
from groundup.kernels.native_library import native_library
from groundup.kernels.weight_packing import WeightFormat
from groundup.model import ModelConfig, Transformer
from groundup.model.layers import Linear
from groundup.model.lora import LoRA, add_lora, copy_sharing_weights
from groundup.model.quantization import quantize_frozen
from groundup.model.quantized import QuantizedWeight, UnconvertedWeight, quantize_int4

needs_kernels = pytest.mark.skipif(native_library() is None, reason="no C++ kernels on this machine")
IDS = torch.arange(3, 23).tolist()


def build(family: str = "qwen3", **changes: object) -> Transformer:
    """A random model whose norms and biases matter."""
    torch.manual_seed(0)
    model = Transformer(replace(small(family), **changes)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter += 0.2 * torch.randn_like(parameter)
        else:
            parameter *= 3 if "embed" not in name else 1
    return model


def export(model: Transformer, path: Path, file_type: FileType) -> Path:
    write_gguf(path, model.config, model.state_dict(), {"tokenizer.ggml.model": "no_vocab"}, file_type)
    return path


def native_logits(model: Transformer, weights: WeightFormat) -> Tensor:
    runner = NativeRunner(model, weights, threads=2)
    cache = runner.open(IDS, len(IDS))
    runner.reserve(cache, len(IDS))
    (logits_V,) = runner.forward([SequenceStep(cache, IDS, scored=True)])
    assert isinstance(logits_V, Tensor)
    return logits_V


@torch.inference_mode()
def torch_logits(model: Transformer) -> Tensor:
    logits_TV: Tensor = model(torch.tensor([IDS]))[0]
    return logits_TV[-1]


@needs_kernels
@pytest.mark.parametrize("family", ["qwen3", "llama", "phi3", "gpt_neox"])
@pytest.mark.parametrize(("file_type", "weights"), [("q8_0", "int8"), ("q4_1", "int4")])
def test_a_file_gives_bitwise_the_results_of_quantization_at_load(
    tmp_path: Path, family: str, file_type: FileType, weights: WeightFormat
) -> None:
    """Quantization finds the int8 values of the file again, and the fit gives its int4 values."""
    model = build(family)
    path = export(model, tmp_path / "model.gguf", file_type)
    dense = load_model(path)
    if file_type == "q4_1":
        model.lm_head.weight.copy_(dense.lm_head.weight)
        model.model.embed_tokens.weight.copy_(dense.model.embed_tokens.weight)
        dense = model
    assert torch.equal(native_logits(load_model(path, dtype=None), "bfloat16"), native_logits(dense, weights))


@pytest.mark.parametrize("file_type", ["f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k"])
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_pytorch_computes_the_same_model(tmp_path: Path, family: str, file_type: FileType) -> None:
    path = export(build(family, dim=256, ffn_dim=512, head_dim=64), tmp_path / "model.gguf", file_type)
    stored, expected_V = load_model(path, dtype=None), torch_logits(load_model(path))
    # Matrices in 5 or 6 bits are rounded to int8, and the scales of q4_k to fp16.
    tolerance = 0.05 if file_type in ("q4_0", "q4_k") else 1e-5
    for _ in range(2):
        assert (torch_logits(stored) - expected_V).norm() < tolerance * expected_V.norm()
        prepare_for_torch(stored)
    assert not any(isinstance(module, UnconvertedWeight) for module in stored.modules())


@needs_kernels
def test_matrices_of_different_formats_are_computed_together() -> None:
    """Queries in int4, keys dense, values in int8, and the two projections of the MLP in int4 and int8."""
    model = build()
    for block in model.model.layers:
        for layer, bits in ((block.self_attn.q_proj, 4), (block.self_attn.v_proj, 8), (block.mlp.up_proj, 8)):
            layer.quantized, layer.weight = QuantizedWeight.quantize(layer.weight, bits), None
        block.mlp.gate_proj.quantized = quantize_int4(block.mlp.gate_proj.weight)
        block.mlp.gate_proj.weight = None
    found_V, expected_V = native_logits(model, "bfloat16"), torch_logits(model)
    assert (found_V - expected_V).norm() < 0.04 * expected_V.norm()


@needs_kernels
@pytest.mark.parametrize("group_size", [16, 32, 64])
def test_other_groups_are_packed(group_size: int) -> None:
    model = build(dim=128, ffn_dim=256)
    quantize_frozen(model, 4, group_size)
    found_V, expected_V = native_logits(model, "int8"), torch_logits(model)
    assert (found_V - expected_V).norm() < 0.06 * expected_V.norm()


def with_random_adapter(base: Transformer) -> Transformer:
    adapted = copy_sharing_weights(base)
    add_lora(adapted, LoRA(rank=3), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3, generator=generator)
    return adapted


@needs_kernels
def test_adapters_share_stored_weights(tmp_path: Path) -> None:
    path = export(build("llama"), tmp_path / "model.gguf", "q8_0")
    base = load_model(path, dtype=None)
    adapted, runner = with_random_adapter(base), NativeRunner(base, "bfloat16", threads=1)
    shared, alone = (NativeRunner(adapted, "bfloat16", threads=1, base=each) for each in (runner, None))
    assert alone.decoder.nbytes - shared.decoder.nbytes == runner.decoder._packer.nbytes
    dense = with_random_adapter(load_model(path))
    assert torch.equal(native_logits(adapted, "bfloat16"), native_logits(dense, "int8"))
    assert not torch.equal(native_logits(adapted, "bfloat16"), native_logits(base, "bfloat16"))


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_file_gives_an_error(tmp_path: Path, kept: float) -> None:
    path = export(build(), tmp_path / "model.gguf", "q4_1")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FormatError, match=r"has only|remain"):
        load_model(path, dtype=None)


PROGRAM = """
import re, sys
from pathlib import Path
import torch
from groundup.hub import load_model
from groundup.inference.runner import NativeRunner, SequenceStep
status = lambda key: 1024 * int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
small = torch.ones(32, 32, dtype=torch.bfloat16)
small.float() @ small.float()
before = status("VmHWM")
model = load_model(Path(sys.argv[1]), dtype=None)
runner = NativeRunner(model, sys.argv[2], threads=2)
cache = runner.open([1, 2, 3], 8)
runner.reserve(cache, 3)
runner.forward([SequenceStep(cache, [1, 2, 3], scored=True)])
print(runner.decoder.nbytes, status("VmHWM") - before, status("VmRSS") - before)
"""


@needs_kernels
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("source", ["q8_0", "directory"])
def test_memory_is_that_of_the_packed_weights(tmp_path: Path, source: str) -> None:
    """The dense model has 190 MB. Imports, intermediate results and unused huge pages add at most 60 MB."""
    config = ModelConfig("llama", 1024, 3, 16, 16, 64, 2816, 8_000, 64, tie_embeddings=True)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}
    row = torch.randn(2816, dtype=torch.bfloat16)  # repeated, because random numbers take seconds
    state = {name: row[: shape[-1]].expand(shape).clone() for name, shape in shapes.items()}
    path = tmp_path if source == "directory" else tmp_path / "model.gguf"
    if source == "directory":
        save_weights(path, config, state, SpecialTokenIds(0, 0))
    else:
        write_gguf(path, config, state, {"tokenizer.ggml.model": "no_vocab"}, "q8_0")
    weights = "int8" if source == "directory" else "bfloat16"
    command = [sys.executable, "-c", PROGRAM, str(path), weights]
    packed, peak, now = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert packed > 30_000_000
    assert peak < packed + 100_000_000 and now < packed + 60_000_000


def test_a_quantized_head_and_embedding_have_a_loss() -> None:
    model = build("qwen3")
    labels_BT = torch.tensor([IDS])
    for layer in (model.lm_head, model.model.embed_tokens):
        layer.quantized = QuantizedWeight.quantize(layer.weight, 8)
        dense = layer.quantized.dequantize()
        layer.weight.copy_(dense)
    expected = []
    for dense_weight in (True, False):
        if not dense_weight:
            for layer in (model.lm_head, model.model.embed_tokens):
                layer.weight = None
        else:
            kept = model.lm_head.quantized, model.model.embed_tokens.quantized
            model.lm_head.quantized = model.model.embed_tokens.quantized = None
        expected.append(model(labels_BT, labels_BT=labels_BT))
        model.lm_head.quantized, model.model.embed_tokens.quantized = kept
    assert torch.equal(*expected)
    assert isinstance(model.lm_head, Linear) and model.lm_head.dense_weight().shape == (300, 64)
