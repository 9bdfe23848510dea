"""Quantized weights of frozen layers: int8 or int4 values with a scale, and optionally a minimum, per group.

A forward pass dequantizes each weight temporarily. The dequantized weight is not saved for the backward pass.
`groundup.model.quantization` quantizes the layers of a model. Models are also loaded with quantized weights, from GGUF
and compressed-tensors.

A group consists of consecutive inputs of one output. Its weights are scale x q, where q is a signed integer, or scale x
q + minimum, where q is an unsigned integer. `QuantizedWeight.quantize` rounds as GGUF does, to groups of 32 inputs:

- int8 (Q8_0): q is from -127 to 127, and the scale is max|w| / 127. `values` is an int8 tensor of shape (O, I), like
  `weight` in compressed-tensors.
- int4 (Q4_0): q is from -8 to 7. The sign of the scale is chosen so that the weight with the largest magnitude has
  q = -8. `values` is a uint8 tensor of shape (O, I / 2), like `weight_packed` in compressed-tensors. A byte contains
  `q + 8` for two inputs. Inputs with an even index are in the low 4 bits.

`quantize_int4` rounds to int4 with a minimum (Q4_1), which has half the error.

Letters in tensor names: I is the number of inputs of a layer, O the number of outputs, G the number of groups per
output, and S the size of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bits = Literal[4, 8]
GROUP_SIZE = 32  # the group size of GGUF's Q8_0, Q4_0 and Q4_1
_OFFSET = 8  # added to int4 values before packing, so that they are unsigned
_INT4_FITS = 4  # rounds of rounding and fitting


class QuantizedWeight(nn.Module):
    """A quantized matrix of shape (O, I). The docstring of this module describes the format.

    Attributes:
        values: For 8 bits, an int8 tensor of shape (O, I) or (O, G, S). For 4 bits, a uint8 tensor of half the size. It
            may be a view of a memory-mapped file, with gaps between groups.
        scales: Scales of shape (O, G). `quantize` creates fp16 scales, but any floating-point dtype is supported.
        minimums: Minimums of shape (O, G). If None, values are signed.
        bits: Number of bits per value, 4 or 8.
        distance: For 4 bits, the distance between the two inputs whose values a byte contains: 1 for adjacent inputs,
            16 in GGUF.
    """

    values: Tensor
    scales: Tensor
    minimums: Tensor | None

    def __init__(
        self, values: Tensor, scales: Tensor, bits: Bits, minimums: Tensor | None = None, distance: int = 1
    ) -> None:
        super().__init__()
        self.bits = bits
        self.distance = distance
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)
        self.register_buffer("minimums", minimums)

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

    @property
    def shape(self) -> tuple[int, int]:
        """Number of outputs and number of inputs."""
        return len(self.values), self.values[0].numel() * 8 // self.bits

    @property
    def group_size(self) -> int:
        """Number of inputs that share a scale."""
        return self.shape[1] // self.scales.shape[1]

    @property
    def nbytes(self) -> int:
        """Size of values, scales and minimums in bytes."""
        return sum(each.nbytes for each in (self.values, self.scales, self.minimums) if each is not None)

    def __getitem__(self, outputs: slice) -> QuantizedWeight:
        return self.map_rows(lambda rows: rows[outputs])

    def map_rows(self, change: Callable[[Tensor], Tensor]) -> QuantizedWeight:
        """Return the matrix with changed rows, such as a part of them. `change` is applied to values and scales."""
        minimums = None if self.minimums is None else change(self.minimums)
        return QuantizedWeight(change(self.values), change(self.scales), self.bits, minimums, self.distance)

    def resolve(self) -> QuantizedWeight:
        """Return the weight with its values in memory or in a memory-mapped file."""
        return self

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the dequantized matrix of shape (O, I). It is computed in fp32 and then rounded to `dtype`."""
        return _dequantized(self.values, self.scales, self.minimums, self.bits, self.distance, dtype)

    def rows(self, outputs: Tensor) -> Tensor:
        """Return the weights of some outputs in fp32, of shape (..., I), where (...) is the shape of `outputs`."""
        values, scales, minimums = (
            None if each is None else each[outputs.flatten()] for each in (self.values, self.scales, self.minimums)
        )
        assert values is not None and scales is not None
        weight = _dequantized(values, scales, minimums, self.bits, self.distance, torch.float32)
        return weight.view(*outputs.shape, -1)

    def unsigned(self) -> Tensor:
        """Return the values of an int4 weight as they are stored, one per byte, of shape (O, I)."""
        return _unpacked(self.values, self.distance).flatten(1)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b in the dtype of x."""
        bias = None if bias is None else bias.to(x.dtype)
        out: Tensor = _QuantizedLinear.apply(x, self.values, self.scales, self.minimums, bias, self.bits, self.distance)
        return out

    def extra_repr(self) -> str:
        """Return the number of bits and the group size as text for `repr`."""
        return f"bits={self.bits}, group_size={self.group_size}"


class UnconvertedWeight(QuantizedWeight):
    """A quantized matrix in another format, which is converted each time that it is used.

    The converted matrix is not kept, so a model in this form takes no memory in addition to the memory-mapped file.

    Args:
        stored: The stored matrix.
        shape: Number of outputs and number of inputs of the converted matrix.
        bits: Number of bits per value of the converted matrix.
        convert: Function that converts the stored matrix.
    """

    def __init__(
        self, stored: Tensor, shape: tuple[int, int], bits: Bits, convert: Callable[[Tensor], QuantizedWeight]
    ) -> None:
        super().__init__(stored, stored.new_empty(shape[0], shape[1] // GROUP_SIZE, 0), bits)
        self._shape = shape
        self._convert = convert

    @property
    def shape(self) -> tuple[int, int]:
        """Number of outputs and number of inputs."""
        return self._shape

    def resolve(self) -> QuantizedWeight:
        """Return the converted matrix."""
        return self._convert(self.values)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the dequantized matrix of shape (O, I)."""
        return self.resolve().dequantize(dtype)

    def rows(self, outputs: Tensor) -> Tensor:
        """Return the weights of some outputs in fp32."""
        return self.resolve().rows(outputs)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b in the dtype of x."""
        out: Tensor = self.resolve()(x, bias)
        return out

    def extra_repr(self) -> str:
        """Return the shape as text for `repr`."""
        return f"shape={self.shape}"


class _QuantizedLinear(torch.autograd.Function):
    """Compute x W^T + b. The weight is dequantized in the forward pass, and again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        values: Tensor,
        scales: Tensor,
        minimums: Tensor | None,
        bias: Tensor | None,
        bits: Bits,
        distance: int,
    ) -> Tensor:
        ctx.save_for_backward(values, scales, minimums)
        ctx.bits, ctx.distance = bits, distance
        return F.linear(x, _dequantized(values, scales, minimums, bits, distance, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = upstream
        grad_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[4] else None
        values, scales, minimums = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ _dequantized(values, scales, minimums, ctx.bits, ctx.distance, grad.dtype)
        return grad_x, None, None, None, grad_bias, None, None


def _packed(q_OI: Tensor) -> Tensor:
    """Pack pairs of int4 values into bytes, of shape (O, I / 2)."""
    stored = (q_OI + _OFFSET).to(torch.uint8)
    return stored[:, 0::2] | (stored[:, 1::2] << 4)


def _unpacked(values: Tensor, distance: int) -> Tensor:
    """Return one unsigned int4 value per byte. The last axis of the result has twice the size."""
    pairs = values.unflatten(-1, (-1, distance))
    return torch.stack([pairs & 15, pairs >> 4], dim=-2).flatten(-3)


def _dequantized(
    values: Tensor,
    scales_OG: Tensor,
    minimums_OG: Tensor | None,
    bits: Bits,
    distance: int,
    dtype: torch.dtype,
) -> Tensor:
    if bits == 4:
        values = _unpacked(values, distance)
        if minimums_OG is None:
            values = values.to(torch.int8) - _OFFSET
    groups_OGS = values if values.dim() == 3 else values.unflatten(1, (scales_OG.shape[1], -1))
    weight_OGS = groups_OGS * scales_OG.float().unsqueeze(-1)
    if minimums_OG is not None:
        weight_OGS += minimums_OG.float().unsqueeze(-1)
    return weight_OGS.flatten(1).to(dtype)


def quantize_int4(weight_OI: Tensor) -> QuantizedWeight:
    """Round weights to scale x q + minimum with q from 0 to 15, per group of 32 inputs, as in GGUF's Q4_1.

    Scale and minimum begin at the range of the group and are then fitted to the rounded values by least squares.

    Args:
        weight_OI: Weights (O, I), I a multiple of 32.

    Returns:
        The quantized weight in groups, in which a byte contains the values of inputs i and i + 16.
    """
    groups_OGS = weight_OI.detach().float().unflatten(1, (-1, GROUP_SIZE))
    minimums_OG1, maximums_OG1 = groups_OGS.aminmax(dim=-1, keepdim=True)
    scales_OG1 = ((maximums_OG1 - minimums_OG1) / 15).half().float()
    minimums_OG1 = minimums_OG1.half().float()
    best: tuple[Tensor, ...] | None = None
    for _ in range(_INT4_FITS):
        q_OGS = ((groups_OGS - minimums_OG1) / scales_OG1.where(scales_OG1 != 0, 1.0)).round_().clamp_(0, 15)
        error_OG1 = (q_OGS * scales_OG1 + minimums_OG1 - groups_OGS).square().sum(-1, keepdim=True)
        found = (error_OG1, q_OGS, scales_OG1, minimums_OG1)
        if best is None:
            best = found
        else:
            better_OG1 = error_OG1 < best[0]
            best = tuple(torch.where(better_OG1, new, old) for new, old in zip(found, best, strict=True))
        mean_q, mean_w = q_OGS.mean(-1, keepdim=True), groups_OGS.mean(-1, keepdim=True)
        variance = (q_OGS - mean_q).square().sum(-1, keepdim=True)
        slope = ((q_OGS - mean_q) * (groups_OGS - mean_w)).sum(-1, keepdim=True) / variance.clamp(min=1e-20)
        scales_OG1 = slope.half().float()
        minimums_OG1 = (mean_w - slope * mean_q).half().float()
    assert best is not None
    _, q_OGS, scales_OG1, minimums_OG1 = best
    half = GROUP_SIZE // 2
    stored = q_OGS.to(torch.uint8)
    values_OGS = stored[..., :half] | (stored[..., half:] << 4)
    return QuantizedWeight(values_OGS, scales_OG1.squeeze(-1).half(), 4, minimums_OG1.squeeze(-1).half(), half)
