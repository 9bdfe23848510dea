"""`python -m benchmarks.small_text.compare`: compare training on small texts with the old planner and with PPMd.

It also compares predictions with measured values, and the planned size with other sizes. benchmarks/README.md describes
the parts. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pretrain.processes import ContenderError, ProcessRunner
from benchmarks.pretrain.quality import TOLERANCE
from benchmarks.small_text.texts import Corpus
from benchmarks.small_text.trained import Run, Runs, old_checkout
from groundup.data import TokenShards
from groundup.evaluation.compressors import score_compressors
from groundup.evaluation.stats import paired_difference
from groundup.tokenizer import Tokenizer

PARTS = ("gain", "ppmd", "prediction", "sweep")
SIZES = {"1mb": 1_000_000, "5mb": 5_000_000, "30mb": 30_000_000}
KEYS = (
    *(f"gain_{size}" for size in SIZES),
    *(f"ppmd_margin_{size}" for size in SIZES),
    "time_within_10",
    "memory_within_10",
    "loss_within_3",
    "sweep_gap",
)
_MINUTES = {"1mb": 10.0, "5mb": 10.0, "30mb": 20.0}
_SWEEP_SIZES, _SWEEP_MINUTES = ("1mb", "30mb"), 5.0
_DEPTHS = (-2, -1, 0, 1, 2)  # relative to the planned number of layers
_MIN_DEPTH = 2
_PLAN_PARAMETERS, _PLAN_MINUTES = (1e6, 30e6), (1.0, 10.0)
_SHORT = {"seeds": 1, "minutes": 1.0, "sizes": "1mb", "plans": 2}


def main() -> None:
    """Measure the selected parts and print the results."""
    options = _options()
    directory = Path(options.work or tempfile.mkdtemp(prefix="bench-small-text-")).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    print(f"Logs, caches and results: {directory}", flush=True)
    corpora = [Corpus(path and path.resolve(), directory) for path in options.corpus or [None]]
    runner = ProcessRunner(directory, options.threads, timeout_seconds=4 * 3600)
    summary: dict[str, Any] = dict.fromkeys(KEYS)
    with ExitStack() as stack:
        old = None
        if "gain" in options.parts:
            old = stack.enter_context(old_checkout(options.old))
        runs = Runs(runner, old, lambda line: print(line, flush=True))
        measures = {"gain": _gain, "ppmd": _ppmd, "prediction": _prediction, "sweep": _sweep}
        for part in options.parts:
            print(f"== {part}", flush=True)
            summary |= measures[part](options, corpora, runs)
    print(json.dumps(summary), flush=True)


def _gain(options: argparse.Namespace, corpora: list[Corpus], runs: Runs) -> dict[str, float]:
    """Return the bits per byte of the old planner minus the new one's, as means over seeds."""
    found = {}
    for size in options.sizes:
        tokens, gains = corpora[0].tokens(SIZES[size]), []
        for seed in range(options.seeds):
            old, new = runs.together([_timed(options, tokens, size, seed, old=old) for old in (True, False)])
            scores = [[nats / math.log(2) for nats in run["score"]["document_nll"]] for run in (old, new)]
            gain = paired_difference(scores[0], scores[1], new["score"]["document_bytes"])
            gains.append(gain.estimate)
            limit = 60 * (options.minutes or _MINUTES[size]) * (1 + TOLERANCE)
            if max(old["seconds"], new["seconds"]) > limit:
                runs.log(
                    f"not comparable: {old['seconds']:.0f} s (old) and {new['seconds']:.0f} s, limit {limit:.0f} s"
                )
            runs.log(f"gain, {size}, seed {seed}: {gain.estimate:.4f} ({gain.low:.4f} to {gain.high:.4f})")
        found[f"gain_{size}"] = statistics.fmean(gains)
    return found


def _ppmd(options: argparse.Namespace, corpora: list[Corpus], runs: Runs) -> dict[str, float]:
    """Return the bits per byte of PPMd of order 8 after the training text, minus the mean of the models over seeds."""
    found = {}
    for size in options.sizes:
        tokens = corpora[0].tokens(SIZES[size])
        models = runs.together([_timed(options, tokens, size, seed) for seed in range(options.seeds)])
        decode = Tokenizer.load(tokens / "tokenizer").decode
        splits = (TokenShards(tokens, split) for split in ("train", "validation"))
        train, held_out = ([decode(split.document(n).tolist()) for n in range(split.n_documents)] for split in splits)
        (ppmd,) = score_compressors(train, held_out, processes=1, names=("PPMd order 8",))
        runs.log(f"{ppmd.label}, {size}: {ppmd.bpb:.4f} bits per byte")
        found[f"ppmd_margin_{size}"] = ppmd.bpb - statistics.fmean(run["score"]["bpb"] for run in models)
    return found


def _prediction(options: argparse.Namespace, corpora: list[Corpus], runs: Runs) -> dict[str, float]:
    """Return the shares of random plans whose time and memory are within 10 %, and whose loss is within 3 %."""
    if len(corpora) > 1:
        texts = [each.tokens(None) for each in corpora]
    else:
        texts = [corpora[0].tokens(SIZES[size]) for size in options.sizes]
    generator = np.random.default_rng(options.plan_seed)
    limits = {"time_within_10": 0.1, "memory_within_10": 0.1, "loss_within_3": 0.03}
    right: dict[str, list[bool]] = {key: [] for key in limits}
    inside = []
    for number in range(options.plans):
        parameters, minutes = (
            math.exp(generator.uniform(math.log(low), math.log(high)))
            for low, high in (_PLAN_PARAMETERS, _PLAN_MINUTES)
        )
        tokens = texts[number % len(texts)]
        budget = ["--minutes", f"{options.minutes or minutes:.2f}", "--parameters", f"{parameters:.3g}"]
        try:
            plan, run = _planned(runs, tokens, budget)
        except ContenderError as error:  # A plan that is refused or fails counts as wrong.
            runs.log(f"plan {number}, {tokens.name}, {' '.join(budget)}: {error}")
            for key in limits:
                right[key].append(False)
            continue
        measured = run["prediction"]["measured"]
        pairs = {
            "time_within_10": (plan["seconds"], measured["seconds"]),
            "memory_within_10": (plan["memory_bytes"], measured["memory_bytes"]),
            "loss_within_3": (plan["bits_per_byte"], run["score"]["bpb"]),
        }
        low, high = plan["bits_per_byte_interval"]
        inside.append(low <= run["score"]["bpb"] <= high)
        # The measured memory is None if the system does not report it.
        errors = {key: predicted / value - 1 for key, (predicted, value) in pairs.items() if value is not None}
        for key, error in errors.items():
            right[key].append(abs(error) <= limits[key])
        shown = ", ".join(f"{key.partition('_')[0]} {error:+.1%}" for key, error in errors.items())
        runs.log(f"plan {number}, {tokens.name}, {' '.join(budget)}: {shown}; inside the interval: {inside[-1]}")
    runs.log(f"inside the stated interval: {sum(inside)} of {options.plans}")
    return {key: statistics.fmean(values) for key, values in right.items() if values}


def _planned(runs: Runs, tokens: Path, budget: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plan a run with `groundup plan`, and train the planned model on the planned number of tokens."""
    plan = runs.stored_plan(tokens, budget)
    sets = [
        f"shape.n_layers={plan['model']['n_layers']}",
        f"max_epochs={plan['epochs'] + 0.01:.2f}",
        f"num_teachers={plan['num_teachers']}",
    ]
    arguments = ("--tokens", str(plan["tokens"]), *(part for each in sets for part in ("--set", each)))
    return plan, runs.result(Run(tokens, arguments))


def _sweep(options: argparse.Namespace, corpora: list[Corpus], runs: Runs) -> dict[str, float]:
    """Return by how much the planned size is worse than the best of five, as a fraction; the largest over the texts.

    The best size is trained again with another seed, and its mean over both seeds counts.
    """
    gaps = []
    for size in [size for size in _SWEEP_SIZES if size in options.sizes] or options.sizes:
        tokens = corpora[0].tokens(SIZES[size])
        minutes = ("--minutes", f"{options.minutes or _SWEEP_MINUTES:g}")
        (planned,) = runs.together([Run(tokens, minutes)])
        depths = {max(_MIN_DEPTH, planned["n_layers"] + offset) for offset in _DEPTHS}
        while len(depths) < len(_DEPTHS):
            depths.add(max(depths) + 1)
        sized = [Run(tokens, (*minutes, "--set", f"shape.n_layers={depth}")) for depth in sorted(depths)]
        scores = {run: result["score"]["bpb"] for run, result in zip(sized, runs.together(sized), strict=True)}
        winner = min(scores, key=lambda run: scores[run])
        (again,) = runs.together([Run(tokens, winner.arguments, seed=1)])
        best = statistics.fmean([scores[winner], again["score"]["bpb"]])
        gaps.append(planned["score"]["bpb"] / best - 1)
        runs.log(f"sweep, {size}: planned {planned['score']['bpb']:.4f}, best size {best:.4f} ({winner.arguments[-1]})")
    return {"sweep_gap": max(gaps)}


def _timed(options: argparse.Namespace, tokens: Path, size: str, seed: int, *, old: bool = False) -> Run:
    return Run(tokens, ("--minutes", f"{options.minutes or _MINUTES[size]:g}"), seed, old)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_text.compare", description=__doc__)
    parser.add_argument("--part", default=",".join(PARTS), help=f"parts, comma-separated: {', '.join(PARTS)} [all]")
    parser.add_argument("--sizes", default=",".join(SIZES), help="sizes of the text, comma-separated [1mb,5mb,30mb]")
    parser.add_argument(
        "--corpus",
        type=Path,
        action="append",
        help="folder, corpus or token shards; if repeated, predictions use each one [the text of the quickstart]",
    )
    parser.add_argument("--minutes", type=float, help="minutes per run [10, 10 and 20; predictions 1 to 10; sweep 5]")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds of gain and ppmd [2]")
    parser.add_argument("--plans", type=int, default=8, help="number of random plans [8]")
    parser.add_argument("--plan-seed", type=int, default=0, help="random seed of the plans [0]")
    parser.add_argument("--threads", type=int, help="threads per run; 1: one run per core at the same time [default]")
    parser.add_argument("--short", action="store_true", help="1 MB, one seed, one minute per run, two plans")
    old = os.environ.get("OLD")
    parser.add_argument("--old", type=Path, default=old and Path(old), help="checkout of the old planner [$OLD]")
    parser.add_argument("--work", help="directory for results, which are reused [a temporary directory]")
    options = parser.parse_args()
    if options.short:
        parser.set_defaults(**_SHORT)
        options = parser.parse_args()
    options.parts, options.sizes = options.part.split(","), options.sizes.split(",")
    for flag, given, known in (("--part", options.parts, PARTS), ("--sizes", options.sizes, SIZES)):
        if unknown := set(given) - set(known):
            parser.error(f"{flag} {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    return options


if __name__ == "__main__":
    main()
