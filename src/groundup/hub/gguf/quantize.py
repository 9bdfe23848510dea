"""Quantization to GGUF types. Simple blocks use the gguf library, K-quants are implemented here."""

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

Array = np.ndarray[Any, Any]

BLOCK = 256
_MAX_SCALE = 63  # 6-bit scales of the groups of Q4_K and Q5_K.
_NUM_Q6_GRIDS = 19  # Grids of 31.1, 31.2, ... 32.9 steps from zero to the extreme, for levels -32 to 31.
_MIN_VALUE = 1e-15  # Groups below this value are written as zeros.


def quantize_q4_k(values: Array) -> Array:
    """Quantize to Q4_K: 8 groups of 32, value = d x scale x level - dmin x minimum; 4.5 bits per value.

    Args:
        values: float32, (blocks, 256).

    Returns:
        uint8, (blocks, 144): d and dmin (float16), 6-bit scales and minima in 12 bytes, 4-bit levels.
    """
    head, level = _with_minima(values, highest=15, first=-1.0, tries=21)  # Grids of 14, 14.1, ... 16 steps.
    return np.concatenate([head, _flat(level[:, :, 0] | level[:, :, 1] << 4)], axis=1)


def quantize_q5_k(values: Array) -> Array:
    """Quantize to Q5_K, which is Q4_K with 5-bit levels; 5.5 bits per value.

    Args:
        values: float32, (blocks, 256).

    Returns:
        uint8, (blocks, 176): as Q4_K, with 32 bytes of the levels' highest bits before their low 4 bits.
    """
    head, level = _with_minima(values, highest=31, first=-0.5, tries=16)
    high = np.packbits(level.reshape(-1, 8, 32) >> 4, axis=1, bitorder="little")  # One bit per group.
    low = level & 15
    return np.concatenate([head, _flat(high), _flat(low[:, :, 0] | low[:, :, 1] << 4)], axis=1)


def quantize_q6_k(values: Array) -> Array:
    """Quantize to Q6_K: 16 groups of 16, value = d x scale x level; 6.5625 bits per value.

    Args:
        values: float32, (blocks, 256).

    Returns:
        uint8, (blocks, 210): low 4 bits of the levels, their high 2 bits, 8-bit scales, d (float16).
    """
    groups_WG = np.ascontiguousarray(values.reshape(-1, 16).T)
    scale_NS = _signed_scale(groups_WG).reshape(-1, 16)
    largest_N = np.take_along_axis(scale_NS, np.abs(scale_NS).argmax(axis=1, keepdims=True), axis=1)[:, 0]
    d_N = (largest_N / np.float32(-128)).astype(np.float16)
    scales_NS = np.rint(scale_NS * _ratio(-128, largest_N)[:, None]).clip(-128, 127)
    step_G = (d_N.astype(np.float32)[:, None] * scales_NS).reshape(-1)
    level_WG = (np.rint(groups_WG * _ratio(1, step_G)).clip(-32, 31) + 32).astype(np.uint8)
    level = level_WG.T.reshape(-1, 2, 4, 32)  # Each half of the block has four runs of 32.
    low = (level[:, :, :2] & 15) | (level[:, :, 2:] & 15) << 4
    high = level[:, :, 0] >> 4 | level[:, :, 1] >> 4 << 2 | level[:, :, 2] >> 4 << 4 | level[:, :, 3] >> 4 << 6
    return np.concatenate([_flat(low), _flat(high), scales_NS.astype(np.int8).view(np.uint8), _bytes(d_N)], axis=1)


def _with_minima(values: Array, *, highest: int, first: float, tries: int) -> tuple[Array, Array]:
    """Return the first 16 bytes of blocks whose groups have minima, and levels (blocks, 4, 2, 32).

    A pair of groups shares bytes: one has the low halves, the other the high ones.
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
    """Return for each group the step between levels, and the distance of level 0 below zero (both >= 0)."""
    weight_WG = np.sqrt(np.square(x_WG).mean(axis=0)) + np.abs(x_WG)
    w_G, wx_G = weight_WG.sum(axis=0), (weight_WG * x_WG).sum(axis=0)
    high_G, best_low_G = x_WG.max(axis=0), np.minimum(x_WG.min(axis=0), 0)
    best_scale_G = (high_G - best_low_G) / np.float32(highest)
    best_error_G: Array | None = None
    for attempt in range(-1, tries):  # -1: the grid between the extremes, without a fit.
        steps = highest if attempt < 0 else highest + first + 0.1 * attempt
        # Starting at the best bottom so far, unlike llama.cpp, extends the search. Relative error on values of
        # Student's t with 5
        # degrees of freedom: 0.0832, with a fixed bottom 0.0836.
        per_step_G = _ratio(steps, high_G - best_low_G)
        level_WG = np.rint((x_WG - best_low_G) * per_step_G).clip(0, highest)
        weighted_level_WG = weight_WG * level_WG
        wl_G, wll_G = weighted_level_WG.sum(axis=0), (weighted_level_WG * level_WG).sum(axis=0)
        wlx_G = (weighted_level_WG * x_WG).sum(axis=0)
        scale_G, bottom_G = best_scale_G, best_low_G
        if attempt >= 0:
            scale_G, bottom_G = _least_squares(w_G, wx_G, wl_G, wll_G, wlx_G)
        # Not computed from the sums above: for a good grid, their difference is mostly rounding error.
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
    """Return scale and bottom (at most zero) of the least-squares line through the values at their levels."""
    determinant_G = np.maximum(w_G * wll_G - wl_G * wl_G, 0)
    scale_G = _ratio(w_G * wlx_G - wx_G * wl_G, determinant_G)
    bottom_G = _ratio(wll_G * wx_G - wl_G * wlx_G, determinant_G)
    above_G = bottom_G > 0
    return np.where(above_G, _ratio(wlx_G, wll_G), scale_G), np.where(above_G, np.float32(0), bottom_G)


def _signed_scale(x_WG: Array) -> Array:
    """Return for each group the step between levels -32 to 31, negative if the extreme is positive."""
    extreme_G = np.take_along_axis(x_WG, np.abs(x_WG).argmax(axis=0)[None], axis=0)[0]
    weighted_WG = np.square(x_WG)
    best_G = scale_G = np.zeros_like(extreme_G)
    for attempt in range(_NUM_Q6_GRIDS):
        steps = -(32 + 0.1 * (attempt - _NUM_Q6_GRIDS // 2))
        level_WG = np.rint(x_WG * _ratio(steps, extreme_G)).clip(-32, 31)
        weighted_level_WG = weighted_WG * level_WG
        wlx_G, wll_G = (weighted_level_WG * x_WG).sum(axis=0), (weighted_level_WG * level_WG).sum(axis=0)
        fitted_G = _ratio(wlx_G, wll_G)
        better_G = fitted_G * wlx_G > best_G  # Reduction of the error by the fit.
        best_G = np.where(better_G, fitted_G * wlx_G, best_G)
        scale_G = np.where(better_G, fitted_G, scale_G)
    return scale_G


def _shared(of_groups_NS: Array) -> tuple[Array, Array]:
    """Return the values of groups (>= 0) as one float16 per block and 6 bits per group."""
    largest_N = of_groups_NS.max(axis=1)
    bits_NS = np.rint(of_groups_NS * _ratio(_MAX_SCALE, largest_N)[:, None]).clip(0, _MAX_SCALE).astype(np.uint8)
    return (largest_N / np.float32(_MAX_SCALE)).astype(np.float16), bits_NS


def _pack_6_bits(scales_NS: Array, minima_NS: Array) -> Array:
    """Pack 6-bit scales and minima.

    Scales and minima of groups 0-3 are the low 6 bits of 8 bytes. Of groups 4-7, the low 4 bits are in 4 more bytes,
    and the high 2 bits are in the first 8 bytes.
    """
    first = scales_NS[:, :4] | scales_NS[:, 4:] >> 4 << 6
    second = minima_NS[:, :4] | minima_NS[:, 4:] >> 4 << 6
    third = scales_NS[:, 4:] & 15 | (minima_NS[:, 4:] & 15) << 4
    return np.concatenate([first, second, third], axis=1)


def _ratio(numerator: Array | float, denominator: Array) -> Array:
    """Return numerator / denominator, and 0 for a denominator close to 0."""
    small = np.abs(denominator) < _MIN_VALUE
    return np.where(small, np.float32(0), np.float32(numerator) / np.where(small, np.float32(1), denominator))


def _bytes(halves_N: Array) -> Array:
    return halves_N[:, None].view(np.uint8)


def _flat(packed: Array) -> Array:
    return packed.reshape(len(packed), -1)


_K_QUANTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "Q4_K": quantize_q4_k,
    "Q5_K": quantize_q5_k,
    "Q6_K": quantize_q6_k,
}
# Values per chunk: a quantizer's working set stays in a core's cache. The fastest of 2^14, 2^15, ... 2^20, by 1.3 to 2
# times compared with 2^20, on a Xeon core: 9 million values per second to Q4_K, 18 to Q6_K, 110 to Q8_0.
_CHUNK = 2**15
_MAX_HALF = 65_504.0


def quantize(name: str, tensor: Tensor, kind: TensorType) -> np.ndarray[Any, Any]:
    """Return the bytes of a tensor in a type.

    Args:
        name: name for messages.
        tensor: floating-point tensor; its rows are multiples of the type's block.
        kind: type.

    Returns:
        uint8, one-dimensional.

    Raises:
        FormatError: a value is not finite, or out of range for the type.
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
        own = _K_QUANTS.get(kind.name)
        if own is not None:
            quantized[first : first + step] = own(chunk)
        else:  # As a single row: the library processes 16 rows at a time and is 7 times slower on rows of one block.
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
            fix="Training diverged, or the file is damaged: export an earlier checkpoint, or download the model again.",
        )
    if kind.name not in ("F32", "BF16") and largest > _MAX_HALF:
        raise FormatError(
            f"{name} contains a value of size {largest:,.0f}",
            rule=f"{kind.name} uses half precision, with a maximum of {_MAX_HALF:,.0f}",
            fix="Export as bf16 or f32.",
        )
