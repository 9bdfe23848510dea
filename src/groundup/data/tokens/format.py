"""File format of token shards: file names, dtypes, and loading of files that may be damaged."""

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
    """Return the path of the file that contains one part of a shard; see `PARTS`."""
    return directory / f"{name}.{part}.npy"


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smaller of uint16 and uint32 that can store every token id of a vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map a `.npy` file that contains a one-dimensional array of integers.

    Args:
        path: File to open.

    Raises:
        FormatError: The file is missing or truncated, or it does not contain such an array.
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
