"""Model directories with weights that compressed-tensors quantized."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from family_shapes import small
from groundup.core.errors import FormatError
from groundup.hub import load_model, save_model
from groundup.hub.compressed_tensors import read_scheme
from groundup.inference.runner import NativeRunner, SequenceStep
from groundup.kernels.native_library import native_library
from groundup.model import Transformer
from groundup.model.quantized import QuantizedWeight

IDS = torch.arange(3, 23).tolist()
W4A16 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False}
W8A16 = W4A16 | {"num_bits": 8, "group_size": 64}
W8A8 = W8A16 | {"strategy": "channel", "group_size": None}
SCHEMES = [("pack-quantized", W4A16), ("pack-quantized", W8A16), ("int-quantized", W8A8)]


def config_of(format_: str, weights: dict[str, Any]) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": format_,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }


def quantized(weight: Tensor, weights: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the values and bf16 scales of a matrix."""
    groups = weight.unflatten(1, (-1, weights["group_size"] or weight.shape[1]))
    highest = 2 ** (weights["num_bits"] - 1) - 1
    scales = (groups.abs().amax(-1) / highest).bfloat16()
    return (groups / scales.float()[..., None]).round().clamp(-highest - 1, highest).flatten(1).to(torch.int8), scales


def by_hand(layer: str, weight: Tensor, format_: str, weights: dict[str, Any]) -> dict[str, Tensor]:
    """Return the stored tensors as the documentation of the format describes them."""
    values, scales = quantized(weight, weights)
    if format_ == "int-quantized":
        return {f"{layer}.weight": values, f"{layer}.weight_scale": scales}
    bits = weights["num_bits"]
    words = (values.long() + 2 ** (bits - 1)).unflatten(1, (-1, 32 // bits))
    packed = (words << (bits * torch.arange(32 // bits))).sum(-1).to(torch.int32)
    shape = torch.tensor(weight.shape)
    return {f"{layer}.weight_packed": packed, f"{layer}.weight_scale": scales, f"{layer}.weight_shape": shape}


def by_the_library(layer: str, weight: Tensor, format_: str, weights: dict[str, Any]) -> dict[str, Tensor]:
    """Return the stored tensors as vLLM's library writes them."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    _, scales = quantized(weight, weights)
    compressor = compressors.BaseCompressor.get_value_from_registry(format_)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=quantization.QuantizationArgs(**weights))
    found = compressor.compress({"weight": weight, "weight_scale": scales}, scheme)
    return {f"{layer}.{name}": tensor for name, tensor in found.items()}


def write_model(path: Path, family: str, format_: str, weights: dict[str, Any], writer: Any) -> Transformer:
    """Write a random model with quantized layers; return it with the dequantized weights."""
    torch.manual_seed(0)
    model = Transformer(replace(small(family), dim=128, head_dim=32, ffn_dim=256)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and ".layers." in name:
            parameter *= 3
            values, scales = quantized(parameter, weights)
            parameter.copy_((values.unflatten(1, (scales.shape[1], -1)) * scales.float()[..., None]).flatten(1))
    save_model(path, model, bos_id=0, eos_id=0)
    stored: dict[str, Tensor] = {}
    for name, tensor in load_file(path / "model.safetensors").items():
        is_layer = tensor.dim() == 2 and ".layers." in name
        stored |= writer(name.removesuffix(".weight"), tensor, format_, weights) if is_layer else {name: tensor}
    save_file(stored, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": config_of(format_, weights)}))
    return model


@pytest.mark.parametrize(("format_", "weights"), SCHEMES)
@pytest.mark.parametrize("family", ["qwen3", "phi3"])
@pytest.mark.parametrize("writer", [by_hand, pytest.param(by_the_library, marks=pytest.mark.interop)])
def test_quantized_directories_are_read(
    tmp_path: Path, writer: Any, family: str, format_: str, weights: dict[str, Any]
) -> None:
    expected = write_model(tmp_path, family, format_, weights, writer)
    found = load_model(tmp_path)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=1e-6, atol=0)
    stored = load_model(tmp_path, dtype=None)
    gate = stored.model.layers[0].mlp.gate_proj  # a part of a fused matrix in Phi-3
    assert isinstance(gate.quantized, QuantizedWeight) and gate.weight is None
    with torch.inference_mode():
        logits_V, expected_V = (model(torch.tensor([IDS]))[0, -1] for model in (stored, expected))
    torch.testing.assert_close(logits_V, expected_V, rtol=1e-4, atol=1e-4)
    if native_library() is not None:
        runner = NativeRunner(stored, "bfloat16", threads=1)
        cache = runner.open(IDS, len(IDS))
        runner.reserve(cache, len(IDS))
        (native_V,) = runner.forward([SequenceStep(cache, IDS, scored=True)])
        assert isinstance(native_V, Tensor) and (native_V - expected_V).norm() < 0.05 * expected_V.norm()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, r"quant_method = 'gptq'.* GGUF file or in bfloat16"),
        ({"quant_method": "awq"}, r"quant_method = 'awq'.* --dtype int4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"'bitsandbytes'.* model.dequantize\(\)"),
        (config_of("float-quantized", W8A8 | {"type": "float"}), "weights.type = 'float'"),
        (config_of("pack-quantized", W4A16 | {"symmetric": False}), "weights.symmetric = False"),
        (config_of("pack-quantized", W4A16 | {"actorder": "group"}), "weights.actorder = 'group'"),
        (config_of("pack-quantized", W4A16) | {"transform_config": {"config_groups": {"u": {}}}}, "transform_config"),
        (config_of("marlin-24", W4A16), "format = 'marlin-24'"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "0 config_groups"),
        (["int8"], "not an object"),
    ],
)
def test_other_quantizations_are_refused(tmp_path: Path, config: Any, message: str) -> None:
    model = Transformer(small("qwen3"))
    save_model(tmp_path, model, bos_id=0, eos_id=0)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}))
    with pytest.raises(FormatError, match=message):
        load_model(tmp_path)
    with pytest.raises(FormatError):
        read_scheme({"text_config": {"quantization_config": config}})


@pytest.mark.parametrize("change", ["scale", "type", "missing"])
def test_a_damaged_matrix_is_refused(tmp_path: Path, change: str) -> None:
    write_model(tmp_path, "qwen3", "pack-quantized", W4A16, by_hand)
    stored = load_file(tmp_path / "model.safetensors")
    layer = "model.layers.1.mlp.down_proj"
    if change == "scale":
        stored[f"{layer}.weight_scale"] = stored[f"{layer}.weight_scale"][:, :3].clone()
    elif change == "type":
        stored[f"{layer}.weight_packed"] = stored[f"{layer}.weight_packed"].long()
    else:
        del stored[f"{layer}.weight_scale"]
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match=r"down_proj"):
        load_model(tmp_path)
