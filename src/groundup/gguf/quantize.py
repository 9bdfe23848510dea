"""Tensors as bytes of a GGUF type: plain ones by torch, simple blocks by the gguf library, K-quants by our own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from gguf.quants import quantize as library_quantize
from torch import Tensor

from groundup.errors import FormatError
from groundup.gguf.kquants import quantize_q4_k, quantize_q5_k, quantize_q6_k
from groundup.gguf.types import PLAIN_TYPES, TensorType

_K_QUANTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "Q4_K": quantize_q4_k,
    "Q5_K": quantize_q5_k,
    "Q6_K": quantize_q6_k,
}
_CHUNK = 2**18  # values at a time: what a try of a K-quant needs of them stays in a core's cache
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
        turned = own(chunk) if own is not None else library_quantize(chunk, kind.library_type)
        quantized[first : first + step] = turned

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
