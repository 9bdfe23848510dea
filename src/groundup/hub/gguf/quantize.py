"""Quantization of tensors to GGUF types.

The K-quants (Q4_K, Q5_K, Q6_K) are implemented here. Q4_1 is fitted as in inference, which has a smaller error than the
minimum and the maximum of a group. The gguf library quantizes to all other types.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from gguf.quants import quantize as library_quantize
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.gguf.types import PLAIN_TYPES, TensorType
from groundup.model.quantized import quantize_int4

Array = np.ndarray[Any, Any]

BLOCK = 256
_MAX_SCALE = 63  # Maximum of the 6-bit group scales in Q4_K and Q5_K.
# Number of step sizes that Q6_K tries per group: the extreme value divided by 31.1, 31.2, ... 32.9.
_NUM_Q6_GRIDS = 19
_MIN_VALUE = 1e-15  # Groups whose values are all below this limit are written as zeros.


def quantize_q4_k(values: Array) -> Array:
    """Quantize blocks of 256 values to Q4_K, with 4.5 bits per value.

    A block consists of 8 groups of 32 values. A value is d x scale x level - dmin x minimum. The block stores d and
    dmin, each group stores a scale and a minimum, and each value stores a level.

    Args:
        values: float32 array of shape (blocks, 256).

    Returns:
        uint8 array of shape (blocks, 144). Each block contains d and dmin (float16), the 6-bit scales and minima in 12
        bytes, and the 4-bit levels.
    """
    head, level = _with_minima(values, highest=15, first=-1.0, tries=21)  # Tries 14, 14.1, ... 16 steps.
    return np.concatenate([head, _flat(level[:, :, 0] | level[:, :, 1] << 4)], axis=1)


def quantize_q5_k(values: Array) -> Array:
    """Quantize blocks of 256 values to Q5_K, with 5.5 bits per value. The format is Q4_K with 5-bit levels.

    Args:
        values: float32 array of shape (blocks, 256).

    Returns:
        uint8 array of shape (blocks, 176). The format is the same as Q4_K, except that 32 bytes with the highest bits
        of all levels precede the low 4 bits.
    """
    head, level = _with_minima(values, highest=31, first=-0.5, tries=16)
    high = np.packbits(level.reshape(-1, 8, 32) >> 4, axis=1, bitorder="little")  # One bit per group.
    low = level & 15
    return np.concatenate([head, _flat(high), _flat(low[:, :, 0] | low[:, :, 1] << 4)], axis=1)


def quantize_q6_k(values: Array) -> Array:
    """Quantize blocks of 256 values to Q6_K, with 6.5625 bits per value.

    A block consists of 16 groups of 16 values. A value is d x scale x level. The block stores d, each group stores a
    scale, and each value stores a level.

    Args:
        values: float32 array of shape (blocks, 256).

    Returns:
        uint8 array of shape (blocks, 210). Each block contains the low 4 bits of all levels, their high 2 bits, the
        8-bit scales, and d (float16).
    """
    groups_WG = np.ascontiguousarray(values.reshape(-1, 16).T)
    scale_NS = _signed_scale(groups_WG).reshape(-1, 16)
    largest_N = np.take_along_axis(scale_NS, np.abs(scale_NS).argmax(axis=1, keepdims=True), axis=1)[:, 0]
    d_N = (largest_N / np.float32(-128)).astype(np.float16)
    scales_NS = np.rint(scale_NS * _ratio(-128, largest_N)[:, None]).clip(-128, 127)
    step_G = (d_N.astype(np.float32)[:, None] * scales_NS).reshape(-1)
    level_WG = (np.rint(groups_WG * _ratio(1, step_G)).clip(-32, 31) + 32).astype(np.uint8)
    level = level_WG.T.reshape(-1, 2, 4, 32)  # Each half of a block stores four runs of 32 levels.
    low = (level[:, :, :2] & 15) | (level[:, :, 2:] & 15) << 4
    high = level[:, :, 0] >> 4 | level[:, :, 1] >> 4 << 2 | level[:, :, 2] >> 4 << 4 | level[:, :, 3] >> 4 << 6
    return np.concatenate([_flat(low), _flat(high), scales_NS.astype(np.int8).view(np.uint8), _bytes(d_N)], axis=1)


def quantize_q4_1(values: Array) -> Array:
    """Quantize blocks of 32 values to Q4_1, with 5 bits per value; see `groundup.model.quantized.quantize_int4`.

    Args:
        values: float32 array of shape (blocks, 32).

    Returns:
        uint8 array of shape (blocks, 20). A block contains the scale and the minimum (float16), and the 4-bit values.
    """
    found = quantize_int4(torch.from_numpy(values))
    assert found.minimums is not None
    head = torch.cat([found.scales, found.minimums], dim=1).view(torch.uint8)
    return np.concatenate([head.numpy(), _flat(found.values.numpy())], axis=1)


def _with_minima(values: Array, *, highest: int, first: float, tries: int) -> tuple[Array, Array]:
    """Return the first 16 bytes of each Q4_K or Q5_K block, and the levels of shape (blocks, 4, 2, 32).

    Two groups share the bytes of their levels: the first group uses the low 4 bits, the second group the high 4 bits.
    """
    groups_WG = np.ascontiguousarray(values.reshape(-1, 32).T)
    scale_G, minimum_G = _scale_and_minimum(groups_WG, highest=highest, first=first, tries=tries)
    d_N, scales_NS = _shared(scale_G.reshape(-1, 8))
    dmin_N, minima_NS = _shared(minimum_G.reshape(-1, 8))
    step_G = (d_N.astype(np.float32)[:, None] * scales_NS).reshape(-1)
    offset_G = (dmin_N.astype(np.float32)[:, None] * minima_NS).reshape(-1)
    level_WG = np.rint((groups_WG + offset_G) * _ratio(1, step_G)).clip(0, highest).astype(np.uint8)
    head = np.concatenate([_bytes(d_N), _bytes(dmin_N), _pack_6_bits(scales_NS, minima_NS)], axis=1)
    return head, level_WG.T.reshape(-1, 4, 2, 32)


def _scale_and_minimum(x_WG: Array, *, highest: int, first: float, tries: int) -> tuple[Array, Array]:
    """Return the step size and the minimum of each group, both >= 0. A value is then step size x level - minimum."""
    weight_WG = np.sqrt(np.square(x_WG).mean(axis=0)) + np.abs(x_WG)
    w_G, wx_G = weight_WG.sum(axis=0), (weight_WG * x_WG).sum(axis=0)
    high_G, best_low_G = x_WG.max(axis=0), np.minimum(x_WG.min(axis=0), 0)
    best_scale_G = (high_G - best_low_G) / np.float32(highest)
    best_error_G: Array | None = None
    for attempt in range(-1, tries):  # Attempt -1 uses the range of the values, without a least-squares fit.
        steps = highest if attempt < 0 else highest + first + 0.1 * attempt
        # Each attempt starts with the best minimum found so far, while llama.cpp always starts with the smallest value.
        # For values from Student's t-distribution with 5 degrees of freedom, this reduces the relative error from
        # 0.0836 to 0.0832.
        per_step_G = _ratio(steps, high_G - best_low_G)
        level_WG = np.rint((x_WG - best_low_G) * per_step_G).clip(0, highest)
        weighted_level_WG = weight_WG * level_WG
        wl_G, wll_G = weighted_level_WG.sum(axis=0), (weighted_level_WG * level_WG).sum(axis=0)
        wlx_G = (weighted_level_WG * x_WG).sum(axis=0)
        scale_G, bottom_G = best_scale_G, best_low_G
        if attempt >= 0:
            scale_G, bottom_G = _least_squares(w_G, wx_G, wl_G, wll_G, wlx_G)
        # The error is not computed from the sums above, because rounding errors would dominate a small difference.
        error_G = (weight_WG * np.square(scale_G * level_WG + bottom_G - x_WG)).sum(axis=0)
        if best_error_G is None:
            best_error_G = error_G
            continue
        better_G = (error_G < best_error_G) & (scale_G > 0)
        best_error_G = np.where(better_G, error_G, best_error_G)
        best_scale_G = np.where(better_G, scale_G, best_scale_G)
        best_low_G = np.where(better_G, bottom_G, best_low_G)
    return best_scale_G, -best_low_G


def _least_squares(w_G: Array, wx_G: Array, wl_G: Array, wll_G: Array, wlx_G: Array) -> tuple[Array, Array]:
    """Fit value = scale x level + bottom with weighted least squares, and return scale and bottom. bottom is <= 0."""
    determinant_G = np.maximum(w_G * wll_G - wl_G * wl_G, 0)
    scale_G = _ratio(w_G * wlx_G - wx_G * wl_G, determinant_G)
    bottom_G = _ratio(wll_G * wx_G - wl_G * wlx_G, determinant_G)
    above_G = bottom_G > 0
    return np.where(above_G, _ratio(wlx_G, wll_G), scale_G), np.where(above_G, np.float32(0), bottom_G)


def _signed_scale(x_WG: Array) -> Array:
    """Return the step size of each group for levels -32 to 31.

    The step size is negative if the value with the largest magnitude is positive, because that value gets level -32.
    """
    extreme_G = np.take_along_axis(x_WG, np.abs(x_WG).argmax(axis=0)[None], axis=0)[0]
    weighted_WG = np.square(x_WG)
    best_G = scale_G = np.zeros_like(extreme_G)
    for attempt in range(_NUM_Q6_GRIDS):
        steps = -(32 + 0.1 * (attempt - _NUM_Q6_GRIDS // 2))
        level_WG = np.rint(x_WG * _ratio(steps, extreme_G)).clip(-32, 31)
        weighted_level_WG = weighted_WG * level_WG
        wlx_G, wll_G = (weighted_level_WG * x_WG).sum(axis=0), (weighted_level_WG * level_WG).sum(axis=0)
        fitted_G = _ratio(wlx_G, wll_G)
        better_G = fitted_G * wlx_G > best_G  # The product is the reduction of the squared error.
        best_G = np.where(better_G, fitted_G * wlx_G, best_G)
        scale_G = np.where(better_G, fitted_G, scale_G)
    return scale_G


def _shared(of_groups_NS: Array) -> tuple[Array, Array]:
    """Quantize one non-negative value per group to a float16 factor per block and a 6-bit integer per group."""
    largest_N = of_groups_NS.max(axis=1)
    bits_NS = np.rint(of_groups_NS * _ratio(_MAX_SCALE, largest_N)[:, None]).clip(0, _MAX_SCALE).astype(np.uint8)
    return (largest_N / np.float32(_MAX_SCALE)).astype(np.float16), bits_NS


def _pack_6_bits(scales_NS: Array, minima_NS: Array) -> Array:
    """Pack the 6-bit scales and minima of 8 groups into 12 bytes.

    The scales and minima of groups 0 to 3 are the low 6 bits of the first 8 bytes. The high 2 bits of these bytes store
    the high 2 bits of the scales and minima of groups 4 to 7. Their low 4 bits are in the last 4 bytes.
    """
    first = scales_NS[:, :4] | scales_NS[:, 4:] >> 4 << 6
    second = minima_NS[:, :4] | minima_NS[:, 4:] >> 4 << 6
    third = scales_NS[:, 4:] & 15 | (minima_NS[:, 4:] & 15) << 4
    return np.concatenate([first, second, third], axis=1)


def _ratio(numerator: Array | float, denominator: Array) -> Array:
    """Return numerator / denominator, or 0 if the denominator is close to 0."""
    small = np.abs(denominator) < _MIN_VALUE
    return np.where(small, np.float32(0), np.float32(numerator) / np.where(small, np.float32(1), denominator))


def _bytes(halves_N: Array) -> Array:
    return halves_N[:, None].view(np.uint8)


def _flat(packed: Array) -> Array:
    return packed.reshape(len(packed), -1)


_OWN: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "Q4_1": quantize_q4_1,
    "Q4_K": quantize_q4_k,
    "Q5_K": quantize_q5_k,
    "Q6_K": quantize_q6_k,
}
# Number of values that are quantized together. With this size, the working set of a quantizer fits into the cache of a
# core. On a Xeon core, it was the fastest of 2^14, 2^15, ... 2^20, and 1.3 to 2 times as fast as 2^20. The throughput
# was 9 million values per second for Q4_K, 18 million for Q6_K, and 110 million for Q8_0.
_CHUNK = 2**15
_MAX_HALF = 65_504.0


def quantize(name: str, tensor: Tensor, kind: TensorType) -> np.ndarray[Any, Any]:
    """Convert a tensor to the bytes of a GGUF type.

    Args:
        name: name of the tensor for error messages.
        tensor: floating-point tensor. Its row length must be a multiple of the block size of the type.
        kind: GGUF type.

    Returns:
        One-dimensional uint8 array.

    Raises:
        FormatError: a value is not finite, or is out of range for the type.
    """
    _check_range(name, tensor, kind)
    if kind.name in PLAIN_TYPES:
        converted = tensor.to(PLAIN_TYPES[kind.name]).contiguous()
        return converted.view(-1).view(torch.uint8).numpy()
    values = tensor.to(torch.float32).contiguous().numpy().reshape(-1, kind.block)
    quantized = np.empty((len(values), kind.block_bytes), np.uint8)
    step = _CHUNK // kind.block

    def quantize_chunk(first: int) -> None:
        chunk = values[first : first + step]
        own = _OWN.get(kind.name)
        if own is not None:
            quantized[first : first + step] = own(chunk)
        else:  # Pass a single row. The library processes 16 rows at a time, which is 7 times slower for short rows.
            quantized[first : first + step] = library_quantize(chunk.reshape(1, -1), kind.library_type).reshape(
                len(chunk), kind.block_bytes
            )

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy releases the GIL while it computes.
        for _ in pool.map(quantize_chunk, range(0, len(values), step)):
            pass
    return quantized.reshape(-1)


def _check_range(name: str, tensor: Tensor, kind: TensorType) -> None:
    largest = max(abs(float(extreme)) for extreme in tensor.aminmax())
    if not np.isfinite(largest):
        raise FormatError(
            f"{name} contains a value that is {largest}",
            rule="weights must be finite",
            fix="Training diverged, or the file is damaged. Export an earlier checkpoint, or download the model again.",
        )
    if kind.name not in ("F32", "BF16") and largest > _MAX_HALF:
        raise FormatError(
            f"{name} contains a value with magnitude {largest:,.0f}",
            rule=f"{kind.name} uses half precision, with a maximum of {_MAX_HALF:,.0f}",
            fix="Export as bf16 or f32.",
        )
