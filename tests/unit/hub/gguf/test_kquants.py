"""K-quants, dequantized by the gguf library: format, error, and degenerate values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from groundup.hub.gguf.quantize import quantize_q4_k, quantize_q5_k, quantize_q6_k

Quantizer = Callable[[np.ndarray], np.ndarray]
KINDS = {"Q4_K": quantize_q4_k, "Q5_K": quantize_q5_k, "Q6_K": quantize_q6_k}
# Relative error on Student's t with 5 degrees of freedom, whose outliers resemble weights. llama.cpp's own quantizer
# reaches 0.0832, 0.0421 and 0.0216 (tests/parity/test_gguf_llama_cpp.py compares the bytes).
BOUNDS = {"Q4_K": 0.084, "Q5_K": 0.0426, "Q6_K": 0.0219}


def relative_error(kind: str, blocks: np.ndarray, values: np.ndarray) -> float:
    read = dequantize(blocks, GGMLQuantizationType[kind])
    return float(np.sqrt(np.square(read - values).mean() / np.square(values).mean()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_quantization_error_is_within_bounds(kind: str) -> None:
    values = np.random.default_rng(0).standard_t(5, (2000, 256)).astype(np.float32)
    assert relative_error(kind, KINDS[kind](values), values) < BOUNDS[kind]
    simple = quantize(values, GGMLQuantizationType.Q4_0)
    assert (
        relative_error("Q4_0", simple, values) > 1.25 * BOUNDS["Q4_K"]
    )  # The error of the same bits without a search.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 256)),
        np.full((2, 256), 0.25),
        np.full((2, 256), -0.25),
        np.full((2, 256), 1e-30),
        np.eye(1, 256) * 60_000,
        np.eye(1, 256) * -60_000,
        np.concatenate([np.zeros((1, 128)), np.ones((1, 128))], axis=1),
        np.linspace(1, 2, 256)[None],
    ],
    ids=["zeros", "constant", "negative", "tiny", "spike", "negative-spike", "half-empty", "far-from-zero"],
)
def test_constant_groups_stay_finite(kind: str, values: np.ndarray) -> None:
    """A division by zero would fill the rows of a padded vocabulary, and then every logit, with NaN."""
    values = values.astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        blocks = KINDS[kind](values)
    read = dequantize(blocks, GGMLQuantizationType[kind])
    assert np.isfinite(read).all()
    assert np.abs(read - values).max() <= 0.035 * np.abs(values).max() + 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_independent(kind: str) -> None:
    """Blocks are quantized in chunks and by several threads."""
    values = np.random.default_rng(1).normal(size=(40, 256)).astype(np.float32)
    together = KINDS[kind](values)
    apart = np.concatenate([KINDS[kind](values[first : first + 7]) for first in range(0, 40, 7)])
    np.testing.assert_array_equal(together, apart)
