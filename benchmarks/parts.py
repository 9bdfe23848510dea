"""Parts of a benchmark, each in a process of its own, so that none weighs on another's memory or time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def run_part(module: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Run a module; returns the JSON object that it prints last, and passes on what it prints before."""
    print(f"== {module.rpartition('.')[2]}", flush=True)
    last = ""
    with subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if last:
                print(last, end="", flush=True)
            last = line
    if process.returncode:
        raise SystemExit(f"{module} failed with {process.returncode}")
    found: dict[str, Any] = json.loads(last)
    return found
