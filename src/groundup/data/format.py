"""The files of a shard: what they are called, what they hold, and how one is opened safely."""

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
    """The file of one part of the shard `name`."""
    return directory / f"{name}.{part}.npy"


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map a one-dimensional `.npy` file of integers.

    Raises:
        FormatError: missing, truncated, or something else.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path}: {error}", rule="a shard must be a whole .npy file", fix=REMAKE) from error
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise FormatError(
            f"{path}: {array.ndim} dimensions of {array.dtype}",
            rule="a shard is one row of integers",
            fix=REMAKE,
        )
    return array
