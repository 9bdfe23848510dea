"""Score the applications with `groundup apps evaluate`, with their adapters if there are any.

`python -m benchmarks.applications.evaluate mcq translate --model models/smollm2 --test translate=sentences.jsonl`

An adapter or classifier is searched next to the model and in ./runs, as `groundup apps NAME` does. A test file has the
inputs of its application and `output` in each line. The last line of the output is a JSON object with the score, the
baseline, the 95 % interval, the number of items and the seconds of each application.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.apps import Catalog
from groundup.apps.application_models import choose_adapter
from groundup.commands import apps_evaluate
from groundup.core.console import Console
from groundup.core.errors import GroundupError

APPLICATIONS = tuple(Catalog())


def main() -> None:
    """Score each application, and print the scores together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"applications [all: {', '.join(APPLICATIONS)}]")
    parser.add_argument("--model", default=os.environ.get("MODEL"), help="model directory or GGUF file [$MODEL]")
    for flag, variable, what in (
        ("adapter", "ADAPTERS", "adapter of an application, or none [found automatically]"),
        ("test", "TESTS", "test file of an application [its own test set]"),
    ):
        given = os.environ.get(variable, "").split()
        parser.add_argument(
            f"--{flag}", action="append", default=given, metavar="NAME=PATH", help=f"{what} [${variable}]"
        )
    options = parser.parse_args()
    if not options.model:
        raise SystemExit("set MODEL to a model directory or GGUF file (benchmarks/README.md)")
    adapters, tests = (dict(pair.split("=", 1) for pair in pairs) for pairs in (options.adapter, options.test))
    scores = {}
    for name in options.names or APPLICATIONS:
        scores[name] = score(name, Path(options.model), adapters.get(name), tests.get(name))
        print(f"{name}: {json.dumps(scores[name])}", flush=True)
    print(json.dumps(scores))


def score(name: str, model: Path, adapter: str | None, test: str | None) -> dict[str, Any]:
    """Return the score of an application. An application that cannot run on the model has an error instead.

    Args:
        name: Name of the application.
        model: Model directory or GGUF file.
        adapter: Adapter or classifier, "none", or None to search for one.
        test: Test file, or None for the test set of the application.
    """
    started = time.perf_counter()
    found = replace(Catalog()[name], own_test=Path(test) if test else None)
    try:
        # Inputs that differ between examples, such as the language, exclude an adapter that has one value of them.
        first, *others = found.test_rows()
        columns = [each.name for each in found.app.inputs if any(row[each.name] != first[each.name] for row in others)]
        chosen = choose_adapter(found.app, model, adapter, Console(quiet=True), first, columns)
        config = apps_evaluate.AppsEvaluateConfig(names=(name,), model=chosen, test=found.own_test)
        (result,) = apps_evaluate.run(config, console=Console(quiet=True), on_text=lambda _: None, json_lines=True)
    except GroundupError as error:
        return {"error": str(error)}
    metric, figure = next(iter(result["figures"].items()))
    return {
        "score": figure["value"],
        "baseline": next(iter(result["without_a_model"].values()), None),
        "interval": figure["interval"],
        "items": result["examples"],
        "metric": metric,
        "model": str(chosen),
        "others": {name: other["value"] for name, other in list(result["figures"].items())[1:]},
        "seconds": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    main()
