"""Named arrays with metadata in a safetensors file that has a format version."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt


def read_arrays(
    path: Path, format_version: int, names: Iterable[str]
) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """Return the metadata and the named arrays of a file.

    Args:
        path: The safetensors file.
        format_version: The only format version that the caller can read.
        names: Names of the arrays.

    Returns:
        The metadata, and a dictionary from each name to its array.

    Raises:
        SafetensorError: The file is damaged, or an array is missing.
        ValueError: The file has another format version.
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as stored:
        facts: dict[str, str] = stored.metadata() or {}
        if facts.get("format_version") != str(format_version):
            raise ValueError(f"format_version {facts.get('format_version')}")
        return facts, {name: stored.get_tensor(name) for name in names}
