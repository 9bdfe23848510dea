"""Sampling of tokens and log-probabilities by the compiled kernels, which PyTorch computes in milliseconds.

Shape letters: V vocab.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from groundup.kernels.native_library import native_library


@cache
def _library() -> ctypes.CDLL | None:
    library = native_library()
    if library is not None:
        library.groundup_sample.restype = ctypes.c_int64
        library.groundup_log_sum_exp.restype = ctypes.c_double
    return library


def sample_natively(
    logits_V: Tensor, *, temperature: float, top_k: int | None, top_p: float, min_p: float, uniform: float
) -> int | None:
    """Sample a token with temperature, top-k, top-p and min-p.

    Args:
        logits_V: Logits (V,) in fp32 on the CPU.
        temperature: Divisor of the logits. 0 selects the most likely token.
        top_k: Number of most likely tokens to sample from, or None.
        top_p: Probability of the most likely tokens to sample from.
        min_p: Minimum probability of a token relative to the most likely one.
        uniform: Random number in [0, 1), not used if temperature is 0.

    Returns:
        The token id, -1 if a logit is NaN or the largest one is infinite, or None if the kernels are not available.
    """
    library = _library()
    if library is None or logits_V.dtype != torch.float32:
        return None
    logits_V = logits_V.contiguous()
    limits = (ctypes.c_double(temperature), ctypes.c_int64(top_k or 0), ctypes.c_double(top_p), ctypes.c_double(min_p))
    token: int = library.groundup_sample(*_pointer(logits_V), *limits, ctypes.c_double(uniform))
    return token


def log_sum_exp(logits_V: Tensor) -> float:
    """Return the logarithm of the sum of e^logits.

    Args:
        logits_V: Logits (V,) in fp32 on the CPU.
    """
    library = _library()
    if library is None:
        return float(logits_V.logsumexp(dim=-1))
    logits_V = logits_V.contiguous()
    total: float = library.groundup_log_sum_exp(*_pointer(logits_V))
    return total


def _pointer(logits_V: Tensor) -> tuple[ctypes.c_void_p, ctypes.c_int64]:
    return ctypes.c_void_p(logits_V.data_ptr()), ctypes.c_int64(len(logits_V))
