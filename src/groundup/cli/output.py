"""Writing of results to stdout or to a file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


def as_json(value: Any) -> str:
    """Return a result as indented JSON that ends with a newline.

    Args:
        value: A dataclass or a JSON value. Paths are converted to strings.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def write(text: str, output: str | None = None) -> None:
    """Write a result to stdout without buffering, or to a file atomically.

    Args:
        text: Result to write.
        output: Path of the file. Default: write to stdout.
    """
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    from groundup.core.files import atomic_file, expand_home

    with atomic_file(expand_home(Path(output))) as temporary:
        temporary.write_text(text, encoding="utf-8")
