"""Quantization of frozen linear layers to int8 or int4 with a scale per group (QLoRA, arXiv:2305.14314).

An existing model is quantized before it is moved to a device, compiled or sharded, and before or after LoRA adapters
are added. A forward pass dequantizes each weight temporarily. The dequantized weight is not saved for the backward
pass.

Quantization is symmetric: weight = scale x q, where q is an integer. A group consists of `group_size` consecutive
inputs of one output, and has one fp16 scale. Values are rounded in the same way as in GGUF, and tensors have the layout
of compressed-tensors, so that weights of both formats can be loaded:

- int8 (GGUF Q8_0): q is from -127 to 127, and the scale is max|w| / 127. `values` is an int8 tensor of shape (O, I),
  like `weight` in compressed-tensors.
- int4 (GGUF Q4_0): q is from -8 to 7. The sign of the scale is chosen so that the weight with the largest magnitude has
  q = -8. `values` is a uint8 tensor of shape (O, I / 2), like `weight_packed` in compressed-tensors. A byte contains
  `q + 8` for two inputs. Inputs with an even index are in the low 4 bits.

Letters in tensor names: I is the number of inputs of a layer, O the number of outputs, and G the number of groups per
output.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.errors import ConfigError
from groundup.model.layers import Linear
from groundup.model.lora import get_linear, linear_layers

Bits = Literal[4, 8]
GROUP_SIZE = 32  # the group size of GGUF's Q8_0 and Q4_0
_OFFSET = 8  # added to int4 values before packing, so that they are unsigned


class QuantizedWeight(nn.Module):
    """A quantized matrix of shape (O, I). The docstring of this module describes the format.

    Attributes:
        values: For 8 bits, an int8 tensor of shape (O, I). For 4 bits, a packed uint8 tensor of shape (O, I / 2).
        scales: Scales of shape (O, G). `quantize` creates fp16 scales, but any floating-point dtype is supported.
        bits: Number of bits per value, 4 or 8.
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
        """Round each weight to the nearest multiple of its group's scale.

        Args:
            weight_OI: The matrix to quantize.
            bits: Number of bits per value, 4 or 8.
            group_size: Number of consecutive inputs that share a scale.
        """
        groups_OGS = weight_OI.detach().float().unflatten(1, (-1, group_size))
        if bits == 8:
            scales_OG, minimum, maximum = groups_OGS.abs().amax(-1) / 127, -127, 127
        else:
            extreme = groups_OGS.abs().argmax(-1, keepdim=True)
            scales_OG, minimum, maximum = groups_OGS.gather(-1, extreme).squeeze(-1) / -8, -8, 7
        scales_OG = scales_OG.half()
        divisors_OG1 = scales_OG.float().where(scales_OG != 0, 1.0).unsqueeze(-1)  # the scale of an all-zero group is 0
        q_OI = (groups_OGS / divisors_OG1).round().clamp(minimum, maximum).flatten(1).to(torch.int8)
        return cls(q_OI if bits == 8 else _packed(q_OI), scales_OG, bits)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the dequantized matrix of shape (O, I). It is computed in fp32 and then rounded to `dtype`."""
        return _dequantized(self.values, self.scales, self.bits, dtype)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b in the dtype of x."""
        bias = None if bias is None else bias.to(x.dtype)
        out: Tensor = _QuantizedLinear.apply(x, self.values, self.scales, bias, self.bits)
        return out

    def extra_repr(self) -> str:
        """Return the number of bits and the group size as text for `repr`."""
        return f"bits={self.bits}, group_size={self.values.shape[1] * 8 // self.bits // self.scales.shape[1]}"


class _QuantizedLinear(torch.autograd.Function):
    """Compute x W^T + b. The weight is dequantized in the forward pass, and again in the backward pass."""

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
    """Pack pairs of int4 values into bytes, of shape (O, I / 2)."""
    stored = (q_OI + _OFFSET).to(torch.uint8)
    return stored[:, 0::2] | (stored[:, 1::2] << 4)


def _dequantized(values: Tensor, scales_OG: Tensor, bits: Bits, dtype: torch.dtype) -> Tensor:
    if bits == 4:
        values = torch.stack([values & 15, values >> 4], dim=-1).flatten(1).to(torch.int8) - _OFFSET
    groups_OGS = values.unflatten(1, (scales_OG.shape[1], -1))
    return (groups_OGS * scales_OG.float().unsqueeze(-1)).flatten(1).to(dtype)


def quantize_frozen(model: nn.Module, bits: Bits, group_size: int = GROUP_SIZE) -> list[str]:
    """Quantize all linear layers in the transformer blocks, in place.

    Embeddings, norms, the output head and adapters are not quantized.

    Args:
        model: The model. Its linear layers must be frozen.
        bits: Number of bits per weight, 4 or 8.
        group_size: Number of consecutive inputs that share a scale.

    Returns:
        The names of the quantized layers.

    Raises:
        ConfigError: A layer is trainable or already quantized, or its number of inputs is not a multiple of
            `group_size`. The model is then not modified.
    """
    if bits not in (4, 8):
        raise ConfigError(f"bits = {bits}", rule="only 8 and 4 bits are supported", fix="Set bits = 8 or 4.")
    names = linear_layers(model)
    for name in names:
        _require_quantizable(name, get_linear(model, name), group_size)
    for name in names:
        layer = get_linear(model, name)
        layer.quantized = QuantizedWeight.quantize(layer.weight, bits, group_size)
        layer.weight = None  # type: ignore[assignment]
    return names


def _require_quantizable(name: str, layer: nn.Linear, group_size: int) -> None:
    if not isinstance(layer, Linear) or layer.quantized is not None:
        raise ConfigError(
            f"{name}: not a dense linear layer",
            rule="the layer is already quantized, or has another type",
            fix="Load the model again, and quantize it only once.",
        )
    if layer.weight.requires_grad:
        raise ConfigError(
            f"{name}: trainable weight",
            rule="only frozen layers can be quantized, because quantized weights cannot be trained",
            fix="Freeze the model first, for example with groundup.model.lora.add_lora.",
        )
    if group_size < 2 or group_size % 2 or layer.in_features % group_size:
        raise ConfigError(
            f"{name}: {layer.in_features} inputs, group_size = {group_size}",
            rule="group_size must be even, and the number of inputs must be a multiple of group_size",
            fix="Set a group_size that divides the number of inputs, for example 32 or 16.",
        )


def dequantize(model: nn.Module) -> list[str]:
    """Replace all quantized weights by dequantized fp32 weights, in place.

    Args:
        model: The model.

    Returns:
        The names of the dequantized layers.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, Linear) and module.quantized}
    for layer in found.values():
        layer.weight, layer.quantized = layer.frozen_weight(), None
    return list(found)


def bits_per_weight(model: nn.Module) -> float:
    """Return the average number of bits per weight of the linear layers in the transformer blocks, including scales."""
    layers = [get_linear(model, name) for name in linear_layers(model)]
    held = [layer.quantized if isinstance(layer, Linear) and layer.quantized else layer.weight for layer in layers]
    size = sum(
        each.values.nbytes + each.scales.nbytes if isinstance(each, QuantizedWeight) else each.nbytes for each in held
    )
    return 8 * size / sum(layer.in_features * layer.out_features for layer in layers)
