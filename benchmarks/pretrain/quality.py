"""Bits per byte after equal wall-clock: processes start together with their clocks, compile included, one scorer."""

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
from benchmarks.pretrain.kept import kept
from benchmarks.pretrain.processes import ContenderError, Workplace
from benchmarks.pretrain.shapes import CPU_SHAPES, Shape
from benchmarks.pretrain.verdicts import Figure
from groundup.core.artifact import read
from groundup.data import TokenShards
from groundup.evaluation.stats import paired_difference

Say = Callable[[str], None]
T = TypeVar("T")
MARGIN = 0.10  # bits per byte that the bar asks for
TOLERANCE = 0.02  # of the minutes; a run of ours that takes longer leaves the bar undecided


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer's script in one mode."""

    name: str
    driver: str
    shape: Shape
    dtype: str
    checkout: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def peer_entries(peers: Peers, vocab_size: int) -> list[Entry]:
    """The peers' CPU scripts as they are, and then in bf16.

    nanochat's has 32 rows a step (runs/runcpu.sh); with 16 it takes twice the steps, and may take these, too.
    nanoGPT's CPU command in its README has a model of 4 x 128 that reads 64 tokens; it may also take shape A.
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
    place: Workplace,
    tokens: Path,
    *,
    minutes: float,
    seeds: int,
    documents: int | None,
    wanted: Callable[[str], bool],
    say: Say,
) -> dict[str, Any]:
    """Train everyone for `minutes` from the start of the process, caches empty, and score them.

    Ours and peers take turns, so that hours of a busy machine fall on both. What an earlier command in this --work
    trained is taken.

    Returns:
        `bpb_margin`: the best peer's bits per byte less the worst of ours, as JSON of a Figure whose interval comes
        from the documents, paired; None where a side is missing. `runs`: everyone's figures.
    """
    entries = [entry for entry in peer_entries(peers, TokenShards(tokens, "train").vocab_size) if wanted(entry.name)]
    ours = [
        (f"groundup, seed {seed}", partial(_train_ours, seed)) for seed in range(seeds if wanted("groundup") else 0)
    ]
    theirs = [(entry.name, partial(_train_peer, entry)) for entry in entries]
    runs: dict[str, dict[str, Any]] = {}
    for name, train in _in_turns(ours, theirs):
        asked = {"name": name, "minutes": minutes, "documents": documents}
        measure = partial(train, place, tokens, minutes, documents)
        runs[name] = _attempt(partial(kept, place, f"quality-{_plain(name)}", asked, tokens, measure))
        say(f"{name}: {_line(runs[name])}")
    figure = _margin(runs)
    for run in runs.values():
        run["bpb"] = run.get("score", {}).get("bpb")
        run.pop("score", None)
    margin = figure and figure.to_json()
    late = [name for name, run in runs.items() if name.startswith("groundup") and _late(run, minutes)]
    if margin and late:  # peers end on the second; ours foresees its end, and may miss it
        margin |= {"verdict": "not decided", "because": f"more than {minutes:g} minutes: {', '.join(late)}"}
    return {"bpb_margin": margin, "runs": runs, "minutes": minutes}


def _in_turns(few: Sequence[T], many: Sequence[T]) -> list[T]:
    """Both, each in its order, spread evenly among each other."""
    places = [((index + 0.5) / len(side), item) for side in (few, many) for index, item in enumerate(side)]
    return [item for _, item in sorted(places, key=itemgetter(0))]


def _late(run: Mapping[str, Any], minutes: float) -> bool:
    return bool(run.get("seconds", 0.0) > 60 * minutes * (1 + TOLERANCE))


def _margin(runs: Mapping[str, dict[str, Any]]) -> Figure | None:
    scored = {name: run["score"] for name, run in runs.items() if "score" in run}
    own = [score for name, score in scored.items() if name.startswith("groundup")]
    others = [score for name, score in scored.items() if not name.startswith("groundup")]
    if not own or not others:
        return None
    worst, best = max(own, key=lambda score: score["bpb"]), min(others, key=lambda score: score["bpb"])
    bits = [[nats / math.log(2) for nats in score["document_nll"]] for score in (best, worst)]
    interval = paired_difference(bits[0], bits[1], worst["document_bytes"])
    return Figure(interval.estimate, interval.low, interval.high, MARGIN)


def _plain(name: str) -> str:
    return name.replace(" ", "-").replace(",", "").replace("'", "")


def _train_peer(entry: Entry, place: Workplace, tokens: Path, minutes: float, documents: int | None) -> dict[str, Any]:
    name = f"quality-{_plain(entry.name)}"
    shutil.rmtree(place.directory / "kernels" / name, ignore_errors=True)
    started = time.time()
    job = Job(entry.driver, entry.shape, tokens, entry.dtype, checkout=entry.checkout)
    clock = {"started": started, "deadline": started + 60 * minutes}
    request = {"job": job.to_json(), "clock": clock, "documents": documents}
    result = place.work(name, request, place.environment(name, entry.environment))
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


def _train_ours(seed: int, place: Workplace, tokens: Path, minutes: float, documents: int | None) -> dict[str, Any]:
    """`groundup pretrain TOKENS --minutes M --seed S`, the whole command timed: it chooses model and steps itself."""
    name = f"quality-groundup-{seed}"
    out, cache = place.directory / "models" / name, place.directory / "cache" / name
    for directory in (out, cache):
        shutil.rmtree(directory, ignore_errors=True)
    arguments = [str(tokens), "--minutes", str(minutes), "--seed", str(seed)]
    watched = pretrain(place, name, out, arguments, cache)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    request = {"model": str(out), "tokens": str(tokens), "documents": documents}
    scored = place.work(f"{name}-score", request, place.environment("unused"))
    return {
        "seconds": watched.seconds,
        # Imports, a look at the machine, compiling, and the timing of real steps from which the plan is made.
        "to_first_step_seconds": watched.to_first_step_seconds,
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
        return f"left out, {run['failure']}"
    return f"{run['score']['bpb']:.4f} bits per byte, {run['tokens']:,} tokens in {run['seconds']:.0f} s"
