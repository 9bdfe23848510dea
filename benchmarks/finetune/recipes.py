"""`python -m benchmarks.finetune.recipes [NAME ...]`: measure the gain of each recipe over its base model.

Each recipe runs once per seed. The seed determines the order of the data, the initial adapter weights, and the split of
the data of a classifier. Recipes that do not include data need a table, such as `--table intent=messages.csv`. The
result is the first metric of `groundup compare`, as the mean over seeds for the base model, the fine-tuned model and
the baselines. `ci95` of the difference extends from the lowest lower bound to the highest upper bound of all seeds.
`seconds` is the duration of the run. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from groundup.recipes import bundled

# Maps the name of a benchmark to a bundled recipe and its overrides.
RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "spam": ("spam", ()),
    "sentiment": ("sentiment", ()),
    "intent": ("intent", ()),
    "summarize-conversations": ("summarize-conversations", ()),
    "translate-en-de": ("translate", ()),
    "translate-en-fr": (
        "translate",
        ("finetune.instruct.prompt=Translate to French: {en}", "finetune.instruct.response={fr}"),
    ),
    "multiple-choice": ("multiple-choice", ()),
    "answer-from-passages": ("answer-from-passages", ()),
    "support": ("support", ()),
}


def main() -> None:
    """Run the recipes, and print the result of each seed and a summary."""
    options = _options()
    tables = dict(pair.split("=", 1) for pair in options.table)
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-recipes-"))
    result: dict[str, Any] = {}
    for name in options.names or RECIPES:
        recipe, overrides = bundled()[RECIPES[name][0]], [*RECIPES[name][1]]
        text = recipe.read_text()
        kind = "classify" if "[finetune.classify]" in text else "instruct"
        if name in tables:
            overrides.append(f"finetune.{kind}.data={Path(tables[name]).resolve()}")
        elif '\ndata = "' in text:
            print(f"{name}: skipped, because it needs a table (--table {name}=FILE)", flush=True)
            continue
        overrides += [
            override for recipe_name, override in (pair.split(":", 1) for pair in options.set) if recipe_name == name
        ]
        runs = []
        for seed in options.seeds:
            runs.append(_run(recipe, [*overrides, f"name={name}", f"finetune.{kind}.seed={seed}"], name, seed, work))
            print(f"{name}, seed {seed}: {json.dumps(runs[-1])}", flush=True)
        result[name] = _summary(runs)
    print(json.dumps(result))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"recipes [all: {', '.join(RECIPES)}]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="append", default=[], metavar="NAME=FILE", help="table for a recipe")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME:KEY=VALUE", help="override a setting of a recipe"
    )
    parser.add_argument("--work", help="directory for the runs [a temporary directory]")
    return parser.parse_args()


def _run(recipe: Path, overrides: list[str], name: str, seed: int, work: Path) -> dict[str, Any]:
    """Run a recipe with one seed and return the metrics. Later runs copy the imported model and the corpus."""
    runs = work / f"seed-{seed}"
    directory = runs / name
    earlier = next((path for path in sorted(work.glob(f"seed-*/{name}")) if path != directory), None)
    for part in ("model", "corpus"):
        if earlier is not None and (earlier / part).is_dir() and not (directory / part).exists():
            shutil.copytree(earlier / part, directory / part)
    command = [sys.executable, "-m", "groundup", "run", str(recipe), "--runs", str(runs), "--quiet"]
    started = time.monotonic()
    subprocess.run([*command, *(part for override in overrides for part in ("--set", override))], check=True)
    seconds = time.monotonic() - started
    (comparison,) = directory.glob("compare*/compare.json")
    line = json.loads(comparison.read_text())["lines"][0]
    return {
        "metric": line["name"],
        "base": line["before"]["value"],
        "fine_tuned": line["after"]["value"],
        "difference": line["difference"],
        "verdict": line["verdict"],
        "baseline": {_baseline_name(name): measure["value"] for name, measure in line["baselines"].items()},
        "seconds": round(seconds),
    }


def _baseline_name(name: str) -> str:
    """Return a name for a baseline that is the same for all seeds, because the majority label depends on the split."""
    return "majority class" if name.startswith("always ") else name


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    bounds = [bound for run in runs for bound in run["difference"]["interval"]]
    return {
        "metric": runs[0]["metric"],
        "base": statistics.mean(run["base"] for run in runs),
        "fine_tuned": statistics.mean(run["fine_tuned"] for run in runs),
        "ci95": [min(bounds), max(bounds)],
        "baseline": {name: statistics.mean(run["baseline"][name] for run in runs) for name in runs[0]["baseline"]},
        "verdicts": [run["verdict"] for run in runs],
        "seeds": runs,
    }


if __name__ == "__main__":
    main()
