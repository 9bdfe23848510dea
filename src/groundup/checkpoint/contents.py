"""What the weight files of a directory hold, from their headers alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from groundup.errors import FormatError


def stored_tensors(directory: Path) -> dict[str, Any]:
    """Bytes of the safetensors files there, and how many tensors they hold of each dtype.

    Raises:
        FormatError: a damaged file.
    """
    kinds: Counter[str] = Counter()
    files = sorted(directory.glob("*.safetensors"))
    for path in files:
        try:
            with safe_open(path, framework="pt") as opened:
                kinds.update(opened.get_slice(name).get_dtype() for name in opened.keys())  # noqa: SIM118  no mapping
        except (SafetensorError, OSError) as error:
            raise FormatError(
                f"{path}: {error}",
                rule="a whole safetensors file is needed",
                fix="Copy it again from where it came.",
            ) from error
    return {"bytes": sum(path.stat().st_size for path in files), "tensors": dict(kinds)}
