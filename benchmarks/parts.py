"""Run the parts of a benchmark in separate processes, so that no part affects the memory or time of another part."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def run_part(module: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Run a module, print its output, and return the JSON object in the last line of the output."""
    print(f"== {module.rpartition('.')[2]}", flush=True)
    last = ""
    with subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if last:
                print(last, end="", flush=True)
            last = line
    if process.returncode:
        raise SystemExit(f"{module} failed with exit code {process.returncode}")
    result: dict[str, Any] = json.loads(last)
    return result
