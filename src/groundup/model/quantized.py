"""Quantize the frozen linear layers of a model to int8 or int4 with a scale per group (QLoRA, arXiv:2305.14314).

A transform of a built model, like LoRA and in either order with it, applied before the model is placed, compiled or
sharded. Layers multiply by the dequantized weight; no dense copy is kept for the backward pass.

Scheme: symmetric, weight = scale x q, with one fp16 scale per `group_size` consecutive inputs of an output. Values are
chosen as GGUF chooses them, and tensors are laid out as in compressed-tensors, so that both formats can be read here:

- int8: q from -127 to 127, scale = max|w| / 127 (GGUF Q8_0). `values` (O, I) is int8, as `weight` there.
- int4: q from -8 to 7; the scale has the sign that makes the group's largest weight -8 (GGUF Q4_0). `values` (O, I / 2)
  is uint8, two inputs per byte, the first one in the low bits, each as q + 8: the bytes of `weight_packed` there.

Shape letters: I in_features, O out_features, G groups of an output.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.errors import ConfigError
from groundup.model.layers import Linear
from groundup.model.lora import linear_at, linear_layers

Bits = Literal[4, 8]
GROUP_SIZE = 32  # that of GGUF's Q8_0 and Q4_0
_OFFSET = 8  # of packed int4 values, which are stored without sign


class QuantizedWeight(nn.Module):
    """A quantized matrix (O, I). See this module's docstring for the scheme.

    Attributes:
        values: int8 (O, I), or packed uint8 (O, I / 2).
        scales: (O, G), fp16 if made by `quantize`; any float dtype is computed with.
    """

    values: Tensor
    scales: Tensor

    def __init__(self, values: Tensor, scales: Tensor, bits: Bits) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)

    @classmethod
    def quantize(cls, weight_OI: Tensor, bits: Bits, group_size: int = GROUP_SIZE) -> QuantizedWeight:
        """Round each weight to the nearest multiple of its group's scale."""
        groups_OGS = weight_OI.detach().float().unflatten(1, (-1, group_size))
        if bits == 8:
            scales_OG, least, largest = groups_OGS.abs().amax(-1) / 127, -127, 127
        else:
            extreme = groups_OGS.abs().argmax(-1, keepdim=True)
            scales_OG, least, largest = groups_OGS.gather(-1, extreme).squeeze(-1) / -8, -8, 7
        scales_OG = scales_OG.half()
        divisors_OG1 = scales_OG.float().where(scales_OG != 0, 1.0).unsqueeze(-1)  # a group of zeros has scale 0
        q_OI = (groups_OGS / divisors_OG1).round().clamp(least, largest).flatten(1).to(torch.int8)
        return cls(q_OI if bits == 8 else _packed(q_OI), scales_OG, bits)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the dense matrix (O, I): products in fp32, rounded to `dtype`."""
        return _dequantized(self.values, self.scales, self.bits, dtype)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b in the dtype of x."""
        bias = None if bias is None else bias.to(x.dtype)
        out: Tensor = _QuantizedLinear.apply(x, self.values, self.scales, bias, self.bits)
        return out

    def extra_repr(self) -> str:
        return f"bits={self.bits}, group_size={self.values.shape[1] * 8 // self.bits // self.scales.shape[1]}"


class _QuantizedLinear(torch.autograd.Function):
    """x W^T + b: the weight is dequantized for the product, and again for the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None, bits: Bits) -> Tensor:
        ctx.save_for_backward(values, scales)
        ctx.bits = bits
        return F.linear(x, _dequantized(values, scales, bits, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, None]:
        values, scales = ctx.saved_tensors
        (grad,) = upstream
        grad_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[3] else None
        grad_x = grad @ _dequantized(values, scales, ctx.bits, grad.dtype) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_bias, None


def _packed(q_OI: Tensor) -> Tensor:
    """Return int4 values as bytes, (O, I / 2)."""
    stored = (q_OI + _OFFSET).to(torch.uint8)
    return stored[:, 0::2] | (stored[:, 1::2] << 4)


def _dequantized(values: Tensor, scales_OG: Tensor, bits: Bits, dtype: torch.dtype) -> Tensor:
    if bits == 4:
        values = torch.stack([values & 15, values >> 4], dim=-1).flatten(1).to(torch.int8) - _OFFSET
    groups_OGS = values.unflatten(1, (scales_OG.shape[1], -1))
    return (groups_OGS * scales_OG.float().unsqueeze(-1)).flatten(1).to(dtype)


def quantize_frozen(model: nn.Module, bits: Bits, group_size: int = GROUP_SIZE) -> list[str]:
    """Quantize the linear layers inside the blocks in place; embeddings, norms, head and adapters stay as they are.

    Returns:
        The names of these layers.

    Raises:
        ConfigError: a layer is trained, is quantized already, or its inputs are not whole groups. The model is then as
            it was.
    """
    if bits not in (4, 8):
        raise ConfigError(f"bits = {bits}", rule="weights are quantized to 8 or 4 bits", fix="Give bits = 8 or 4.")
    names = linear_layers(model)
    for name in names:
        _require_quantizable(name, linear_at(model, name), group_size)
    for name in names:
        layer = linear_at(model, name)
        layer.quantized = QuantizedWeight.quantize(layer.weight, bits, group_size)
        layer.weight = None  # type: ignore[assignment]
    return names


def _require_quantizable(name: str, layer: nn.Linear, group_size: int) -> None:
    if not isinstance(layer, Linear) or layer.quantized is not None:
        raise ConfigError(
            f"{name}: not a dense linear layer",
            rule="only dense weights are quantized, once",
            fix="Load the model again, and quantize that.",
        )
    if layer.weight.requires_grad:
        raise ConfigError(
            f"{name}: its weight is trained",
            rule="quantized weights take no gradient, so that only frozen layers are quantized",
            fix="Freeze the model first, for example with LoRA: groundup.model.lora.add_lora.",
        )
    if group_size < 2 or group_size % 2 or layer.in_features % group_size:
        raise ConfigError(
            f"{name}: {layer.in_features} inputs, group_size = {group_size}",
            rule="the inputs of a layer are whole groups of an even size",
            fix="Give a group_size that divides it, for example 32 or 16.",
        )


def dequantize(model: nn.Module) -> list[str]:
    """Put dense fp32 weights back in place of the quantized ones, in place; return the names of these layers."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, Linear) and module.quantized}
    for layer in found.values():
        layer.weight, layer.quantized = layer.frozen_weight(), None
    return list(found)


def bits_per_weight(model: nn.Module) -> float:
    """Return the bits, scales included, that a weight of the linear layers inside the blocks takes on average."""
    layers = [linear_at(model, name) for name in linear_layers(model)]
    held = [layer.quantized if isinstance(layer, Linear) and layer.quantized else layer.weight for layer in layers]
    size = sum(
        each.values.nbytes + each.scales.nbytes if isinstance(each, QuantizedWeight) else each.nbytes for each in held
    )
    return 8 * size / sum(layer.in_features * layer.out_features for layer in layers)
