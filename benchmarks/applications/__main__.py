"""`python -m benchmarks.applications`: quality of the applications and of answers from documents; one JSON object last.

Each part runs in its own process and can also be run alone, such as `python -m benchmarks.applications.ask`. The last
line has the results that have a target first. A result that was not measured is null.
"""

from __future__ import annotations

from benchmarks.applications.evaluate import APPLICATIONS
from benchmarks.parts import Parts, run_parts

PARTS: Parts = {
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


if __name__ == "__main__":
    run_parts(PARTS, __doc__)
