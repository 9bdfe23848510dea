"""Quantized frozen layers: error bounds, gradients, LoRA on quantized weights, and resume."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from family_shapes import kv_heads
from groundup.core.errors import ConfigError
from groundup.hub.adapters import load_adapter, save_adapter
from groundup.kernels import Machine, prepare_model
from groundup.model import FAMILIES, Transformer
from groundup.model.flops import training_bytes
from groundup.model.layers import Linear
from groundup.model.lora import LoRA, add_lora, copy_sharing_weights, fuse_lora, linear_layers, lora_layers, remove_lora
from groundup.model.quantization import bits_per_weight, dequantize, quantize_frozen
from groundup.model.quantized import Bits, QuantizedWeight
from groundup.optim import Optimizer, OptimizerConfig
from groundup.train import Checkpoints

IDS = torch.arange(40).view(2, 20)
BOTH = pytest.mark.parametrize("bits", [8, 4])


def matrix(outputs: int = 24, inputs: int = 96) -> Tensor:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
    weight[3] *= 1e-3
    weight[4, :32] = 0.0
    return weight


def dense_twin(model: Transformer) -> Transformer:
    """Return the model with dense, frozen, dequantized weights."""
    twin = copy.deepcopy(model)
    dequantize(twin)
    return twin


def quantized_lora(
    tiny_model: Callable[..., Transformer], bits: Bits, family: str = "llama", **changes: Any
) -> Transformer:
    model = tiny_model(64, family=family, n_kv_heads=kv_heads(family, 4, 2), **changes)
    add_lora(model, LoRA(rank=4), seed=1)
    quantize_frozen(model, bits)
    for layer in lora_layers(model).values():
        layer.lora_B.data.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    return model


@pytest.mark.parametrize("group_size", [16, 32, 96])
@BOTH
def test_the_error_is_bounded_by_the_scale(bits: Bits, group_size: int) -> None:
    weight = matrix()
    quantized = QuantizedWeight.quantize(weight, bits, group_size)
    scales = quantized.scales.float().abs().repeat_interleave(group_size, dim=1)
    error = (quantized.dequantize() - weight).abs()
    # int4: the largest weight with the opposite sign is clamped, with an error of one step.
    clamped = torch.zeros_like(error, dtype=torch.bool) if bits == 8 else weight.abs() > 7.5 * scales
    assert (error <= (torch.where(clamped, 1.0, 0.5) + 0.07) * scales).all()  # 0.07 for the rounding of scales to fp16
    assert error.pow(2).mean().sqrt() < (0.01 if bits == 8 else 0.12) * weight.pow(2).mean().sqrt()
    assert not quantized.dequantize()[4, :16].any()


@BOTH
def test_representable_weights_are_exact(bits: Bits) -> None:
    """Swapped halves of a byte or a lost sign would otherwise look like large rounding errors."""
    least, largest = (-127, 127) if bits == 8 else (-8, 7)
    q = torch.randint(least, largest + 1, (6, 64), generator=torch.Generator().manual_seed(0))
    q[:, ::32] = least  # the largest absolute value of each group
    quantized = QuantizedWeight.quantize(q * 0.25, bits)
    assert torch.equal(quantized.dequantize(), q * 0.25)
    if bits == 8:
        assert torch.equal(quantized.values * quantized.scales.sign().repeat_interleave(32, 1).char(), q.char())
    else:  # compressed-tensors: eight values per int32, the first in the lowest bits, each with an offset of 8
        packed = quantized.values.contiguous().view(torch.int32)
        unpacked = torch.stack([(packed >> shift) & 15 for shift in range(0, 32, 4)], -1).flatten(1) - 8
        assert torch.equal(unpacked, q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
@BOTH
def test_values_and_gradients_equal_the_dense_model(bits: Bits, with_bias: bool, dtype: torch.dtype) -> None:
    quantized = QuantizedWeight.quantize(matrix(), bits)
    dense = quantized.dequantize().to(dtype)
    bias = torch.randn(24, requires_grad=True) if with_bias else None
    x = torch.randn(2, 5, 96, dtype=dtype, requires_grad=True)
    learned = [x] if bias is None else [x, bias]
    ours = quantized(x, bias)
    plain = torch.nn.functional.linear(x, dense, None if bias is None else bias.to(dtype))
    assert ours.dtype == dtype
    assert torch.equal(ours, plain)
    upstream = torch.randn_like(plain)
    for got, expected in zip(
        torch.autograd.grad(ours, learned, upstream), torch.autograd.grad(plain, learned, upstream), strict=True
    ):
        torch.testing.assert_close(got, expected)


@BOTH
def test_no_dense_weight_is_saved_for_the_backward_pass(bits: Bits) -> None:
    quantized = QuantizedWeight.quantize(matrix(256, 512), bits)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):  # type: ignore[func-returns-value]
        quantized(torch.randn(3, 512, requires_grad=True), None)
    assert {tensor.data_ptr() for tensor in kept} == {quantized.values.data_ptr(), quantized.scales.data_ptr()}


@BOTH
def test_the_memory_of_a_layer(bits: Bits) -> None:
    layer = Linear(512, 256, bias=False).requires_grad_(False)
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.ModuleDict({"up_proj": layer})])})
    outer = torch.nn.ModuleDict({"model": model})
    assert bits_per_weight(outer) == 32
    assert quantize_frozen(outer, bits) == ["model.layers.0.up_proj"]
    assert not list(outer.parameters())
    assert sum(buffer.nbytes for buffer in outer.buffers()) == 512 * 256 * (bits + 0.5) / 8
    assert bits_per_weight(outer) == bits + 0.5


@pytest.mark.parametrize("family", FAMILIES)
@BOTH
def test_lora_gradients_equal_those_on_dense_layers(
    tiny_model: Callable[..., Transformer], family: str, bits: Bits
) -> None:
    model = quantized_lora(tiny_model, bits, family)
    twin = dense_twin(model)
    learned, dense = ([p for p in each.parameters() if p.requires_grad] for each in (model, twin))
    assert len(learned) == 2 * len(linear_layers(model))
    losses = [each(IDS, labels_BT=IDS.roll(-1, 1)) for each in (model, twin)]
    torch.testing.assert_close(*losses)
    for got, expected in zip(
        torch.autograd.grad(losses[0], learned), torch.autograd.grad(losses[1], dense), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@BOTH
def test_lora_before_and_after_quantization_is_the_same(tiny_model: Callable[..., Transformer], bits: Bits) -> None:
    first, then = tiny_model(64), tiny_model(64)
    add_lora(first, LoRA(rank=4), seed=1)
    assert quantize_frozen(first, bits) == linear_layers(first)
    quantize_frozen(then, bits)
    unadapted = then(IDS)
    add_lora(then, LoRA(rank=4), seed=1)
    assert torch.equal(then(IDS), unadapted)
    assert first.state_dict().keys() == then.state_dict().keys()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, then.state_dict()[name]), name
    remove_lora(then)
    assert torch.equal(then(IDS), unadapted)


@BOTH
def test_fuse_merges_into_the_dequantized_weight(tiny_model: Callable[..., Transformer], bits: Bits) -> None:
    model = quantized_lora(tiny_model, bits)
    fine_tuned, names = model(IDS), tiny_model(64, family="llama").state_dict().keys()
    fuse_lora(model)
    assert model.state_dict().keys() == names
    assert not any(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model(IDS), fine_tuned, atol=1e-5, rtol=0)
    assert bits_per_weight(model) == 32


def test_dequantize_includes_layers_without_adapter(tiny_model: Callable[..., Transformer]) -> None:
    model = tiny_model(64)
    add_lora(model, LoRA(rank=2, targets=("q_proj",)))
    names = linear_layers(model)
    quantize_frozen(model, 4)
    before = model(IDS)
    assert fuse_lora(model) == [name for name in names if name.endswith("q_proj")]
    assert dequantize(model) == [name for name in names if not name.endswith("q_proj")]
    torch.testing.assert_close(model(IDS), before)


def test_trainable_layers_are_not_quantized(tiny_model: Callable[..., Transformer]) -> None:
    model = tiny_model(64).requires_grad_(True)
    with pytest.raises(ConfigError, match=r"q_proj: trainable weight.*add_lora"):
        quantize_frozen(model, 8)
    model.requires_grad_(False)
    model.get_parameter("model.layers.1.mlp.up_proj.weight").requires_grad_(True)
    with pytest.raises(ConfigError, match=r"layers\.1\.mlp\.up_proj"):
        quantize_frozen(model, 8)
    assert bits_per_weight(model) == 32  # no layer was changed


def test_unsupported_layers_are_errors(tiny_model: Callable[..., Transformer]) -> None:
    model = tiny_model(64)
    with pytest.raises(ConfigError, match="32 inputs, group_size = 64"):
        quantize_frozen(model, 8, group_size=64)
    with pytest.raises(ConfigError, match="8 or 4"):
        quantize_frozen(model, 3)  # type: ignore[arg-type]
    quantize_frozen(model, 8)
    with pytest.raises(ConfigError, match="once"):
        quantize_frozen(model, 4)


def test_adapters_share_the_quantized_weights_of_their_base(tiny_model: Callable[..., Transformer]) -> None:
    base = tiny_model(64)
    quantize_frozen(base, 4)
    before, fine_tuned = base(IDS), copy_sharing_weights(base)
    add_lora(fine_tuned, LoRA(rank=4))
    for layer in lora_layers(fine_tuned).values():
        layer.lora_B.data.normal_(std=0.2)
    assert torch.equal(base(IDS), before)
    assert {b.data_ptr() for b in fine_tuned.buffers()} == {b.data_ptr() for b in base.buffers()}


def test_a_saved_adapter_loads_onto_a_quantized_base(tiny_model: Callable[..., Transformer], tmp_path: Path) -> None:
    model = quantized_lora(tiny_model, 4)
    save_adapter(tmp_path, model)
    again = tiny_model(64, family="llama")
    quantize_frozen(again, 4)
    load_adapter(tmp_path, again)
    torch.testing.assert_close(again(IDS), model(IDS))


@BOTH
def test_lora_resumes_exactly_and_saves_only_adapters(
    tiny_model: Callable[..., Transformer], tmp_path: Path, bits: Bits
) -> None:
    def run(steps: int, directory: Path) -> tuple[Transformer, list[float]]:
        model = tiny_model(64, family="llama")
        add_lora(model, LoRA(rank=4), seed=1)
        quantize_frozen(model, bits)
        optimizer = Optimizer(model, OptimizerConfig(matrix_lr=0.02, matrices="adamw"))
        checkpoints = Checkpoints(directory, model, optimizer, plan_digest="p")
        progress, losses = checkpoints.restore(), []
        while progress.step < steps:
            loss = model(IDS, labels_BT=IDS.roll(-1, 1)) / IDS.numel()
            loss.backward()
            optimizer.step(1.0)
            for parameter in model.parameters():
                parameter.grad = None
            losses.append(float(loss.detach()))
            progress.step += 1
        checkpoints.save(progress)
        return model, losses

    whole, losses = run(12, tmp_path / "whole")
    assert losses[-1] < losses[0] - 0.5
    _, before = run(5, tmp_path / "stopped")
    saved = load_file(tmp_path / "stopped" / "step-00000005" / "model.safetensors")
    assert saved
    assert all("lora_" in name for name in saved)
    resumed, after = run(12, tmp_path / "stopped")
    assert before + after == losses
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


@pytest.mark.parametrize("compile", [False, True])
def test_a_prepared_model_trains_in_bf16(tiny_model: Callable[..., Transformer], compile: bool) -> None:
    model = quantized_lora(tiny_model, 4)
    learned = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(model(IDS, labels_BT=IDS.roll(-1, 1)), learned)
    prepare_model(model, Machine("cpu", "bfloat16", compile=compile, threads=1, matmul_flops=1e9))
    assert model.operations.recompute
    got = torch.autograd.grad(model(IDS, labels_BT=IDS.roll(-1, 1)), learned)
    for near, exact in zip(got, expected, strict=True):
        assert (near - exact).norm() < 0.1 * exact.norm()


def test_the_planner_counts_quantized_layers(tiny_model: Callable[..., Transformer]) -> None:
    model = tiny_model(64)
    config, lora_parameters = model.config, 1000
    matrices = sum(model.get_submodule(name).weight.numel() for name in linear_layers(model))  # type: ignore[union-attr,operator]
    quantize_frozen(model, 4)
    dense = training_bytes(config, 1, lora_parameters=lora_parameters)
    quantized = training_bytes(config, 1, lora_parameters=lora_parameters, bits_per_weight=bits_per_weight(model))
    assert dense - quantized == matrices * (32 - 4.5) / 8
