"""`python -m benchmarks.collect`: run all benchmarks of `groundup collect`. The last line is a JSON object."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from benchmarks.parts import run_part

PARTS = {
    "throughput": ("fast_vs_datatrove", "best_vs_datatrove"),
    "extraction": (),
    "neardup": ("neardup_vs_datatrove", "neardup_recall_087", "neardup_recall_080", "neardup_precision"),
    "memory": ("rss_1x", "rss_20x"),
    "privacy": ("privacy_recall", "privacy_precision"),
}
REQUIRED_VARIABLES = {
    "throughput": "PAGES",
    "extraction": "ARTICLES",
    "memory": "PAGES",
}  # a part is skipped if its environment variable is not set


def main() -> None:
    """Run all benchmarks. In the JSON object, the targets come first. A target that was not measured is null."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="run only this part (repeatable)")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for part in options.part or PARTS:
        variable = REQUIRED_VARIABLES.get(part)
        if variable and not os.environ.get(variable):
            print(f"{part}: skipped, because {variable} is not set (benchmarks/README.md)", flush=True)
            continue
        figures[part] = run_part(f"benchmarks.collect.{part}")
    targets = {key: figures.get(part, {}).get(key) for part, keys in PARTS.items() for key in keys}
    print(json.dumps(targets | {"figures": figures}))


if __name__ == "__main__":
    main()
