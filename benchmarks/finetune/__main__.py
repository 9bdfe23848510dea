"""`python -m benchmarks.finetune`: LoRA's speed, memory and merging, and what the recipes gain; one JSON object last.

MODEL names a model directory with a chat template, EXAMPLES a table of conversations as `groundup finetune instruct`
reads it; TABLES tables of one's own for the recipes that take one: "intent=messages.csv support=desk.jsonl".
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from benchmarks.parts import run_part

PARTS = ("speed", "memory", "merged", "recipes")


def main() -> None:
    """Run the parts; the first keys of the last line are the bars, null where they were not measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be given several times")
    options = parser.parse_args()
    model, examples = os.environ.get("MODEL"), os.environ.get("EXAMPLES")
    parts = options.part or PARTS
    if (not model or not examples) and set(parts) != {"recipes"}:
        raise SystemExit("set MODEL to a model directory and EXAMPLES to a table (benchmarks/README.md)")
    tables = [part for table in os.environ.get("TABLES", "").split() for part in ("--table", table)]
    arguments = {
        "speed": ["--model", str(model), "--data", str(examples)],
        "memory": ["--model", str(model), "--text", str(examples)],
        "merged": ["--model", str(model), "--data", str(examples)],
        "recipes": tables,
    }
    figures: dict[str, Any] = {}
    for part in parts:
        figures[part] = run_part(f"benchmarks.finetune.{part}", arguments[part])
    speed, memory = figures.get("speed", {}), figures.get("memory", {})
    bars = {
        "lora_vs_trl": speed.get("lora_vs_trl"),
        "rss_vs_trl": speed.get("rss_vs_trl"),
        "lora_rss_vs_full": memory.get("activations_kept", {}).get("share"),
    }
    print(json.dumps(bars | figures.pop("recipes", {}) | {"figures": figures}))


if __name__ == "__main__":
    main()
