"""`python -m benchmarks.finetune`: measure speed, memory and merging of LoRA, and the gain of each recipe.

The benchmark reads these environment variables. MODEL is the directory of a chat model. EXAMPLES is a table of
conversations for `groundup finetune instruct`. TABLES names the tables for recipes that do not include data, such as
"intent=messages.csv support=desk.jsonl". The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from benchmarks.parts import run_part

PARTS = ("speed", "memory", "merged", "recipes")


def main() -> None:
    """Run all benchmarks. In the JSON object, the targets come first. A target that was not measured is null."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="run only this part (repeatable)")
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
    targets = {
        "lora_vs_trl": speed.get("lora_vs_trl"),
        "rss_vs_trl": speed.get("rss_vs_trl"),
        "lora_rss_vs_full": memory.get("activations_kept", {}).get("share"),
    }
    print(json.dumps(targets | figures.pop("recipes", {}) | {"figures": figures}))


if __name__ == "__main__":
    main()
