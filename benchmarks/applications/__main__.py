"""`python -m benchmarks.applications`: quality of the applications and of answers from documents; one JSON object last.

Each part runs in its own process and can also be run alone, such as `python -m benchmarks.applications.ask`. The last
line has the results that have a target first. A result that was not measured is null.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from benchmarks.applications.evaluate import APPLICATIONS
from benchmarks.parts import run_part

# The module of each part, and its keys in the last line of the output.
PARTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "evaluate": ("benchmarks.applications.evaluate", APPLICATIONS),
    "ask": (
        "benchmarks.applications.ask",
        (
            "recall_at_5",
            "answered",
            "citation_precision",
            "refusals",
            "injected_followed",
            "index_passages_per_s",
            "ask_ms",
        ),
    ),
}
KEYS = tuple(key for _, keys in PARTS.values() for key in keys)


def main() -> None:
    """Run the parts, and print their results together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="parts to run [all]")
    options, flags = parser.parse_known_args()
    if flags and len(options.part or PARTS) > 1:
        parser.error(f"{' '.join(flags)}: give the flags of a part with --part")
    results = {part: run_part(PARTS[part][0], flags) for part in options.part or PARTS}
    measured = {key: value for result in results.values() for key, value in result.items() if key in KEYS}
    print(json.dumps({key: measured.get(key) for key in KEYS} | {"parts": results}))


if __name__ == "__main__":
    main()
