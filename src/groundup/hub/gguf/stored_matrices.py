"""Matrices of GGUF files in the quantized format in which they are stored, or in the nearest format of groundup.

Shape letters: O outputs, N blocks of an output, B bytes.
"""

from __future__ import annotations

from functools import partial

import torch
from gguf.quants import dequantize
from torch import Tensor

from groundup.hub.gguf.types import TensorType
from groundup.model.quantized import Bits, QuantizedWeight, UnconvertedWeight, quantize_int4
from groundup.model.weight_map import Weight

# Types with the grid of QuantizedWeight: the bytes before the values, and the number of bits.
_HEADS = {"Q8_0": 2, "Q4_0": 2, "Q4_1": 4}
_HALF = 16  # distance between the two inputs whose values share a byte
_CHUNK_WEIGHTS = 2**21  # weights that are converted at a time
_MAX_INT4_BITS = 5  # bits per weight of the types that are converted to int4; others are converted to int8


def is_exact(kind: TensorType) -> bool:
    """Return whether `QuantizedWeight` has the values of a type without rounding."""
    return kind.name in _HEADS


def nearest_bits(kind: TensorType) -> Bits:
    """Return the number of bits of the values to which matrices of a type are converted."""
    return 4 if 8 * kind.block_bytes <= _MAX_INT4_BITS * kind.block else 8


def stored_matrix(stored_OB: Tensor, kind: TensorType, holder: Weight, name: str) -> QuantizedWeight:
    """Return a quantized matrix that is a view of the file, or that is converted each time that it is used.

    Args:
        stored_OB: bytes of the tensor in the file, row by row.
        kind: type of the tensor; not a floating-point type.
        holder: entry of the weight table for the tensor.
        name: name of the parameter; a tensor may contain several parameters.
    """
    if holder.keeps_rows:
        stored_OB, holder = holder.read(stored_OB)[name], Weight(name, (name,))
        if is_exact(kind):
            return _matrix(stored_OB, kind)
    outputs = len(holder.read(stored_OB[:, :1])[name])
    shape = outputs, stored_OB.shape[1] // kind.block_bytes * kind.block
    convert = partial(_converted, kind=kind, holder=holder, name=name)
    return UnconvertedWeight(stored_OB, shape, nearest_bits(kind), convert)


def _converted(stored_OB: Tensor, kind: TensorType, holder: Weight, name: str) -> QuantizedWeight:
    rows_OB = holder.read(stored_OB)[name].cpu()
    if is_exact(kind):
        return _matrix(rows_OB, kind)
    step = max(1, _CHUNK_WEIGHTS // (rows_OB.shape[1] // kind.block_bytes * kind.block))
    parts = [_rounded(rows_OB[first : first + step], kind) for first in range(0, len(rows_OB), step)]
    minimums = [part.minimums for part in parts if part.minimums is not None]
    return QuantizedWeight(
        torch.cat([part.values for part in parts]),
        torch.cat([part.scales for part in parts]),
        parts[0].bits,
        torch.cat(minimums) if minimums else None,
        parts[0].distance,
    )


def _matrix(rows_OB: Tensor, kind: TensorType) -> QuantizedWeight:
    """Return a view of the blocks of an exact type. A block has the scale, the minimum (Q4_1), and 32 values."""
    blocks_ONB = rows_OB.unflatten(1, (-1, kind.block_bytes))
    head = _HEADS[kind.name]
    halves_ONB = blocks_ONB[..., :head].view(torch.float16)
    values = blocks_ONB[..., head:]
    if kind.name == "Q8_0":
        return QuantizedWeight(values.view(torch.int8), halves_ONB[..., 0], 8)
    return QuantizedWeight(values, halves_ONB[..., 0], 4, halves_ONB[..., 1] if head > 2 else None, _HALF)


def _rounded(rows_OB: Tensor, kind: TensorType) -> QuantizedWeight:
    if kind.name == "Q4_K":
        return _from_q4_k(rows_OB.unflatten(1, (-1, kind.block_bytes)))
    dense = torch.from_numpy(dequantize(rows_OB.reshape(1, -1).numpy(), kind.library_type)).view(len(rows_OB), -1)
    return quantize_int4(dense) if nearest_bits(kind) == 4 else QuantizedWeight.quantize(dense, 8)


def _from_q4_k(blocks_ONB: Tensor) -> QuantizedWeight:
    """Convert blocks of 8 groups, whose scales and minimums are products, to groups with fp16 scales and minimums.

    The values stay the same. `groundup.hub.gguf.quantize` describes the blocks.
    """
    of_scales, of_minimums = blocks_ONB[..., :4].contiguous().view(torch.float16).float().unbind(-1)
    first, second, third = blocks_ONB[..., 4:16].unflatten(-1, (3, 4)).unbind(-2)
    scales = torch.cat([first & 63, third & 15 | first >> 6 << 4], dim=-1)
    minimums = torch.cat([second & 63, third >> 4 | second >> 6 << 4], dim=-1)
    low, high = blocks_ONB[..., 16:].unflatten(-1, (4, 2, _HALF)).unbind(-2)
    values = torch.stack([low & 15 | (high & 15) << 4, low >> 4 | high >> 4 << 4], dim=-2)
    return QuantizedWeight(
        values.flatten(1, 3),
        (of_scales[..., None] * scales).half().flatten(1),
        4,
        (-of_minimums[..., None] * minimums).half().flatten(1),
        _HALF,
    )
