"""`python -m benchmarks.finetune.recipes [NAME ...]`: each recipe, base against tuned, over seeds; JSON last.

A recipe is run as a user runs it, once for each seed (of the order, the adapters and, of labels, the split). Those that
take a table of one's own are run where one is given: `--table intent=messages.csv`. Of each, the first figure of
`groundup compare`: means over the seeds of base, tuned and the simple ways beside; `ci95` is of the difference, from
the lowest bound of all seeds to the highest. `seconds` are those of tuning, comparing and reporting.
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

# By name: the recipe's file, and what is changed in it.
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
    "write-questions": ("write-questions", ()),
    "answer-from-passages": ("answer-from-passages", ()),
    "support": ("support", ()),
}


def main() -> None:
    """Run the recipes; print what each seed gave, and all of it as JSON at the end."""
    options = _options()
    tables = dict(pair.split("=", 1) for pair in options.table)
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-recipes-"))
    found: dict[str, Any] = {}
    for name in options.names or RECIPES:
        recipe, changes = bundled()[RECIPES[name][0]], [*RECIPES[name][1]]
        text = recipe.read_text()
        kind = "classify" if "[finetune.classify]" in text else "instruct"
        if name in tables:
            changes.append(f"finetune.{kind}.data={Path(tables[name]).resolve()}")
        elif '\ndata = "' in text:
            print(f"{name}: takes a table of one's own (--table {name}=FILE), left out", flush=True)
            continue
        changes += [change for of, change in (pair.split(":", 1) for pair in options.set) if of == name]
        runs = []
        for seed in options.seeds:
            runs.append(_run(recipe, [*changes, f"name={name}", f"finetune.{kind}.seed={seed}"], name, seed, work))
            print(f"{name}, seed {seed}: {json.dumps(runs[-1])}", flush=True)
        found[name] = _summary(runs)
    print(json.dumps(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(RECIPES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="append", default=[], metavar="NAME=FILE", help="of one's own, for a recipe")
    parser.add_argument("--set", action="append", default=[], metavar="NAME:KEY=VALUE", help="change one recipe")
    parser.add_argument("--work", help="directory for the runs; default: a temporary one")
    return parser.parse_args()


def _run(recipe: Path, changes: list[str], name: str, seed: int, work: Path) -> dict[str, Any]:
    """What one seed gave. Imported model and corpus do not depend on it: those of the first run are taken."""
    runs = work / f"seed-{seed}"
    directory = runs / name
    before = next((path for path in sorted(work.glob(f"seed-*/{name}")) if path != directory), None)
    for part in ("model", "corpus"):
        if before is not None and (before / part).is_dir() and not (directory / part).exists():
            shutil.copytree(before / part, directory / part)
    command = [sys.executable, "-m", "groundup", "run", str(recipe), "--runs", str(runs), "--quiet"]
    started = time.monotonic()
    subprocess.run([*command, *(part for change in changes for part in ("--set", change))], check=True)
    seconds = time.monotonic() - started
    (compared,) = directory.glob("compare*/compare.json")
    line = json.loads(compared.read_text())["lines"][0]
    return {
        "metric": line["name"],
        "base": line["before"]["value"],
        "tuned": line["after"]["value"],
        "difference": line["difference"],
        "verdict": line["verdict"],
        "baseline": {_way(name): measure["value"] for name, measure in line["beside"].items()},
        "seconds": round(seconds),
    }


def _way(name: str) -> str:
    """A simple way under one name in all seeds: which label is the commonest hangs on the split."""
    return "always the commonest label" if name.startswith("always ") else name


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    bounds = [bound for run in runs for bound in run["difference"]["interval"]]
    return {
        "metric": runs[0]["metric"],
        "base": statistics.mean(run["base"] for run in runs),
        "tuned": statistics.mean(run["tuned"] for run in runs),
        "ci95": [min(bounds), max(bounds)],
        "baseline": {way: statistics.mean(run["baseline"][way] for run in runs) for way in runs[0]["baseline"]},
        "verdicts": [run["verdict"] for run in runs],
        "seeds": runs,
    }


if __name__ == "__main__":
    main()
