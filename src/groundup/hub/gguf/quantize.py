"""Tensors as bytes of a GGUF type: plain ones by torch, simple blocks by the gguf library, K-quants by our own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from gguf.quants import quantize as library_quantize
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.hub.gguf.kquants import quantize_q4_k, quantize_q5_k, quantize_q6_k
from groundup.hub.gguf.types import PLAIN_TYPES, TensorType

_K_QUANTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "Q4_K": quantize_q4_k,
    "Q5_K": quantize_q5_k,
    "Q6_K": quantize_q6_k,
}
# Values at a time: what a quantizer needs of them stays in a core's cache. Of 2^14, 2^15, ... 2^20 the fastest, by 1.3
# to 2 times that of 2^20, on a Xeon core: 9 million values a second to Q4_K, 18 to Q6_K, 110 to Q8_0.
_CHUNK = 2**15
_LARGEST_HALF = 65_504.0


def quantize(name: str, tensor: Tensor, kind: TensorType) -> np.ndarray[Any, Any]:
    """The tensor's bytes as a file of this type holds them.

    Args:
        name: for messages.
        tensor: floating point; its rows are multiples of the type's block.

    Returns:
        uint8, one-dimensional.

    Raises:
        FormatError: a value that is not finite, or that the type cannot hold.
    """
    _check_range(name, tensor, kind)
    if kind.name in PLAIN_TYPES:
        plain = tensor.to(PLAIN_TYPES[kind.name]).contiguous()
        return plain.view(-1).view(torch.uint8).numpy()
    values = tensor.to(torch.float32).contiguous().numpy().reshape(-1, kind.block)
    quantized = np.empty((len(values), kind.block_bytes), np.uint8)
    step = _CHUNK // kind.block

    def turn(first: int) -> None:
        chunk = values[first : first + step]
        own = _K_QUANTS.get(kind.name)
        if own is not None:
            quantized[first : first + step] = own(chunk)
        else:  # as one row: the library takes 16 rows at a time, and is 7 times slower on rows of one block
            quantized[first : first + step] = library_quantize(chunk.reshape(1, -1), kind.library_type).reshape(
                len(chunk), kind.block_bytes
            )

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy lets go of the interpreter while it computes
        for _ in pool.map(turn, range(0, len(values), step)):
            pass
    return quantized.reshape(-1)


def _check_range(name: str, tensor: Tensor, kind: TensorType) -> None:
    largest = max(abs(float(extreme)) for extreme in tensor.aminmax())
    if not np.isfinite(largest):
        raise FormatError(
            f"{name} holds a value that is {largest}",
            rule="weights are finite",
            fix="Training diverged, or the file is damaged: export an earlier checkpoint, or get the model again.",
        )
    if kind.name not in ("F32", "BF16") and largest > _LARGEST_HALF:
        raise FormatError(
            f"{name} holds a value of size {largest:,.0f}",
            rule=f"half precision, in which {kind.name} keeps its numbers, ends at {_LARGEST_HALF:,.0f}",
            fix="Export as bf16 or f32.",
        )
