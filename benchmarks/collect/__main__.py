"""`python -m benchmarks.collect`: all parts, each in a process of its own, and one JSON object last."""

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
NEEDS = {
    "throughput": "PAGES",
    "extraction": "ARTICLES",
    "memory": "PAGES",
}  # the environment variable without which a part is left out


def main() -> None:
    """Run the parts; the first keys of the last line are the bars, null where they were not measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be given several times")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for part in options.part or PARTS:
        needed = NEEDS.get(part)
        if needed and not os.environ.get(needed):
            print(f"{part}: left out, since {needed} names no directory (benchmarks/README.md)", flush=True)
            continue
        figures[part] = run_part(f"benchmarks.collect.{part}")
    bars = {key: figures.get(part, {}).get(key) for part, keys in PARTS.items() for key in keys}
    print(json.dumps(bars | {"figures": figures}))


if __name__ == "__main__":
    main()
