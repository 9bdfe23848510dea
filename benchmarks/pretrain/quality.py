"""Comparison of the bits per byte that the programs reach after the same wall time.

The time is measured from the start of the process and includes compilation. The same scorer evaluates all programs.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.pretrain.command import pretrain
from benchmarks.pretrain.contenders import Peers
from benchmarks.pretrain.job import Job
from benchmarks.pretrain.processes import ContenderError, ProcessRunner
from benchmarks.pretrain.result_cache import cached
from benchmarks.pretrain.shapes import CPU_SHAPES, Shape
from benchmarks.pretrain.targets import TargetResult
from groundup.core.artifact import read
from groundup.data import TokenShards
from groundup.evaluation.stats import paired_difference

Log = Callable[[str], None]
T = TypeVar("T")
MARGIN = 0.10  # Target for the difference in bits per byte.
TOLERANCE = 0.02  # If groundup exceeds the time limit by more than this fraction, the result is not decided.


@dataclass(frozen=True, slots=True)
class Entry:
    """A program other than groundup in one mode."""

    name: str
    driver: str
    shape: Shape
    dtype: str
    checkout: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def peer_entries(peers: Peers, vocab_size: int) -> list[Entry]:
    """Return the other programs, with the settings of their CPU scripts, in fp32 and bf16.

    nanochat is trained with its default batch size of 32 rows (runs/runcpu.sh), and with 16 rows and twice as many
    steps. nanoGPT is trained with the model of the CPU command in its README (4 layers, hidden size 128, context length
    64), and with shape a.
    """
    shape = replace(CPU_SHAPES["a"], vocab_size=vocab_size)
    readme = Shape("readme", n_layers=4, dim=128, n_heads=4, context=64, vocab_size=vocab_size, rows=12)
    entries: list[Entry] = []
    if peers.nanogpt:
        entries += [
            Entry("nanoGPT, fp32", "nanogpt", shape, "float32", peers.nanogpt),
            Entry("nanoGPT, README's CPU command", "nanogpt", readme, "float32", peers.nanogpt),
            Entry("nanoGPT, bf16", "nanogpt", shape, "bfloat16", peers.nanogpt),
        ]
    if peers.nanochat:
        script, bf16 = replace(shape, rows=32), {"NANOCHAT_DTYPE": "bfloat16"}
        entries += [
            Entry("nanochat, fp32", "nanochat", script, "float32", peers.nanochat),
            Entry("nanochat, bf16", "nanochat", script, "bfloat16", peers.nanochat, bf16),
            Entry("nanochat, bf16, 16 rows", "nanochat", shape, "bfloat16", peers.nanochat, bf16),
        ]
    return entries


def compare_quality(
    peers: Peers,
    runner: ProcessRunner,
    tokens: Path,
    *,
    minutes: float,
    seeds: int,
    documents: int | None,
    selected: Callable[[str], bool],
    log: Log,
) -> dict[str, Any]:
    """Train each program for `minutes` from the start of its process, with empty caches, and score the models.

    Runs of groundup and of the other programs alternate, so that changes in the load of the machine affect both. If an
    earlier command used the same --work directory, its results are reused.

    Returns:
        A dict. `bpb_margin` is the bits per byte of the best other program minus the bits per byte of the worst seed of
        groundup. The value is the JSON form of a TargetResult with a paired interval over documents. It is None if
        groundup or all other programs have no result. `runs` has the results of all programs, keyed by name.
    """
    entries = [entry for entry in peer_entries(peers, TokenShards(tokens, "train").vocab_size) if selected(entry.name)]
    groundup_runs = [
        (f"groundup, seed {seed}", partial(_train_groundup, seed))
        for seed in range(seeds if selected("groundup") else 0)
    ]
    other_runs = [(entry.name, partial(_train_peer, entry)) for entry in entries]
    runs: dict[str, dict[str, Any]] = {}
    for name, train in _interleave(groundup_runs, other_runs):
        settings = {"name": name, "minutes": minutes, "documents": documents}
        measure = partial(train, runner, tokens, minutes, documents)
        runs[name] = _attempt(partial(cached, runner, f"quality-{_plain(name)}", settings, tokens, measure))
        log(f"{name}: {_line(runs[name])}")
    figure = _margin(runs)
    for run in runs.values():
        run["bpb"] = run.get("score", {}).get("bpb")
        run.pop("score", None)
    margin = figure and figure.to_json()
    late = [name for name, run in runs.items() if name.startswith("groundup") and _late(run, minutes)]
    if margin and late:  # Only groundup plans the number of steps in advance, so only groundup can exceed the time.
        margin |= {"verdict": "not decided", "because": f"more than {minutes:g} minutes: {', '.join(late)}"}
    return {"bpb_margin": margin, "runs": runs, "minutes": minutes}


def _interleave(few: Sequence[T], many: Sequence[T]) -> list[T]:
    """Merge two sequences so that their items are distributed evenly. Each sequence keeps its order."""
    positions = [((index + 0.5) / len(side), item) for side in (few, many) for index, item in enumerate(side)]
    return [item for _, item in sorted(positions, key=itemgetter(0))]


def _late(run: Mapping[str, Any], minutes: float) -> bool:
    return bool(run.get("seconds", 0.0) > 60 * minutes * (1 + TOLERANCE))


def _margin(runs: Mapping[str, dict[str, Any]]) -> TargetResult | None:
    scored = {name: run["score"] for name, run in runs.items() if "score" in run}
    groundup = [score for name, score in scored.items() if name.startswith("groundup")]
    others = [score for name, score in scored.items() if not name.startswith("groundup")]
    if not groundup or not others:
        return None
    worst, best = max(groundup, key=lambda score: score["bpb"]), min(others, key=lambda score: score["bpb"])
    bits = [[nats / math.log(2) for nats in score["document_nll"]] for score in (best, worst)]
    interval = paired_difference(bits[0], bits[1], worst["document_bytes"])
    return TargetResult(interval.estimate, interval.low, interval.high, MARGIN)


def _plain(name: str) -> str:
    return name.replace(" ", "-").replace(",", "").replace("'", "")


def _train_peer(
    entry: Entry, runner: ProcessRunner, tokens: Path, minutes: float, documents: int | None
) -> dict[str, Any]:
    name = f"quality-{_plain(entry.name)}"
    shutil.rmtree(runner.directory / "kernels" / name, ignore_errors=True)
    started = time.time()
    job = Job(entry.driver, entry.shape, tokens, entry.dtype, checkout=entry.checkout)
    clock = {"started": started, "deadline": started + 60 * minutes}
    request = {"job": job.to_json(), "clock": clock, "documents": documents}
    result = runner.run_worker(name, request, runner.environment(name, entry.environment))
    steps = result.pop("step_seconds")
    return {
        "seconds": result["to_first_step_seconds"] + sum(steps[1:]),
        "compile_seconds": steps[0] - statistics.median(steps[1:] or steps),
        "to_first_step_seconds": result["to_first_step_seconds"],
        "steps": len(steps),
        "tokens": len(steps) * entry.shape.step_tokens,
        "parameters": result["parameters"],
        "score": result["score"],
    }


def _train_groundup(
    seed: int, runner: ProcessRunner, tokens: Path, minutes: float, documents: int | None
) -> dict[str, Any]:
    """Measure `groundup pretrain TOKENS --minutes M --seed S`, which plans the model and the number of steps."""
    name = f"quality-groundup-{seed}"
    out, cache = runner.directory / "models" / name, runner.directory / "cache" / name
    for directory in (out, cache):
        shutil.rmtree(directory, ignore_errors=True)
    arguments = [str(tokens), "--minutes", str(minutes), "--seed", str(seed)]
    timing = pretrain(runner, name, out, arguments, cache)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    request = {"model": str(out), "tokens": str(tokens), "documents": documents}
    scored = runner.run_worker(f"{name}-score", request, runner.environment("unused"))
    return {
        "seconds": timing.seconds,
        # This time includes imports, the measurement of the machine and of training steps for the plan, and
        # compilation.
        "to_first_step_seconds": timing.to_first_step_seconds,
        "steps_seconds": sum(row["seconds"] for row in rows),
        "steps": len(rows),
        "tokens": rows[-1]["tokens_seen"],
        "parameters": read(out).facts["parameters"],
        "score": scored["score"],
    }


def _attempt(train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return train()
    except ContenderError as error:
        return {"failure": str(error)}


def _line(run: Mapping[str, Any]) -> str:
    if "failure" in run:
        return f"skipped, {run['failure']}"
    return f"{run['score']['bpb']:.4f} bits per byte, {run['tokens']:,} tokens in {run['seconds']:.0f} s"
