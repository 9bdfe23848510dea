"""File format of token shards: names, dtypes, and safe loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import FormatError

FORMAT_VERSION = 1
INDEX = "index.json"
PARTS = ("tokens", "offsets", "bytes")
REMAKE = "Delete this directory and run groundup tokenize again."


def part_path(directory: Path, name: str, part: str) -> Path:
    """Return the path of one part of a shard."""
    return directory / f"{name}.{part}.npy"


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest unsigned dtype that can store every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map a one-dimensional `.npy` file of integers.

    Args:
        path: File to open.

    Raises:
        FormatError: The file is missing, truncated, or contains something else.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path}: {error}", fix=REMAKE) from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise FormatError(
            f"{path}: expected a one-dimensional array of integers, found {array.ndim} dimensions of {array.dtype}",
            fix=REMAKE,
        )
    return array
