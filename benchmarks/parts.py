"""Run the parts of a benchmark in separate processes, so that no part affects the memory or time of another part."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

Parts = Mapping[str, tuple[str, tuple[str, ...]]]
"""Maps the name of each part of a benchmark to its module, and to its keys in the last line of the output."""


def run_parts(parts: Parts, description: str | None) -> None:
    """Run the parts that the command line selects, and print their results as one JSON object.

    Args:
        parts: All parts.
        description: Description for `--help`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=tuple(parts), help="parts to run [all]")
    options, flags = parser.parse_known_args()
    if flags and len(options.part or parts) > 1:
        parser.error(f"{' '.join(flags)}: give the flags of a part with --part")
    keys = [key for _, own in parts.values() for key in own]
    results = {part: run_part(parts[part][0], flags) for part in options.part or parts}
    measured = {key: value for result in results.values() for key, value in result.items() if key in keys}
    print(json.dumps({key: measured.get(key) for key in keys} | {"parts": results}))


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
