"""What each choice of training is worth: everyone the same minutes, one thing changed, over seeds, one scorer."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from benchmarks.pretrain.job import Job, Variant
from benchmarks.pretrain.kept import kept
from benchmarks.pretrain.processes import ContenderError, Workplace
from benchmarks.pretrain.shapes import Shape
from groundup.data import TokenShards
from groundup.evaluation.stats import paired_difference

Say = Callable[[str], None]


def ablate(
    place: Workplace, tokens: Path, *, minutes: float, seeds: int, wanted: Callable[[str], bool], say: Say
) -> dict[str, Any]:
    """Train each variant of `Variant` for `minutes` with each seed, and score it on the held-out documents.

    Seeds go round by round, so that hours of a busy machine fall on all alike. The time begins with the process, but
    compiling is done in one before, once for each variant. What an earlier command in this --work trained is taken.

    Returns:
        variant -> `bpb` of each seed and their mean, `tokens` seen, and `difference` from the unchanged training: bits
        per byte over documents and seeds, paired, with its 95 % interval.
    """
    shape = Shape("ablation", n_layers=4, dim=256, n_heads=4, context=512, vocab_size=0, rows=16)
    shape = replace(shape, vocab_size=TokenShards(tokens, "train").vocab_size)
    variants = [variant for variant in get_args(Variant) if variant == "as it is" or wanted(variant)]
    runs: dict[str, dict[int, dict[str, Any]]] = {variant: {} for variant in variants}
    compiled: set[Variant] = set()

    def train(variant: Variant, seed: int) -> dict[str, Any]:
        if variant not in compiled:
            _train(place, tokens, shape, variant, seed=0, seconds=1, documents=1)
            compiled.add(variant)
        return _train(place, tokens, shape, variant, seed=seed, seconds=60 * minutes)

    for seed in range(seeds):
        for variant in variants:
            asked = {"shape": asdict(shape), "variant": variant, "seed": seed, "minutes": minutes}
            try:
                run = kept(place, f"{_name(variant)}-{seed}", asked, tokens, partial(train, variant, seed))
            except ContenderError as error:
                say(f"{variant}, seed {seed}: left out, {error}")
                continue
            runs[variant][seed] = run
            say(f"{variant}, seed {seed}: {run['score']['bpb']:.4f} bits per byte, {run['tokens']:,} tokens")
    unchanged = runs["as it is"]
    return {variant: _told(found, unchanged) for variant, found in runs.items() if found.keys() & unchanged.keys()}


def ablation_table(found: dict[str, Any]) -> str:
    """The variants as a table, as benchmarks/ablations.md shows it."""
    lines = [
        "| | bits per byte, by seed | tokens seen | difference (95 %) |",
        "| --- | --- | ---: | --- |",
    ]
    for variant, told in found.items():
        low, high = told["interval_95"]
        scores = ", ".join(f"{bpb:.4f}" for bpb in told["bpb"])
        difference = "" if variant == "as it is" else f"{told['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
        lines.append(f"| {variant} | {scores} | {told['tokens'] / 1e6:.1f} M | {difference} |")
    return "\n".join(lines)


def _train(
    place: Workplace,
    tokens: Path,
    shape: Shape,
    variant: Variant,
    *,
    seed: int,
    seconds: float,
    documents: int | None = None,
) -> dict[str, Any]:
    name = _name(variant)
    job = Job("ours", shape, tokens, matrices="adamw" if variant == "AdamW" else "muon", seed=seed, variant=variant)
    started = time.time()
    clock = {"started": started, "deadline": started + seconds}
    request = {"job": job.to_json(), "clock": clock, "documents": documents}
    result = place.work(f"{name}-{seed}", request, place.environment(name))
    return {"tokens": result["tokens"], "score": result["score"]}


def _name(variant: Variant) -> str:
    return f"ablation-{variant}".replace(" ", "-")


def _told(found: Mapping[int, dict[str, Any]], unchanged: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted(found.keys() & unchanged.keys())
    runs = [found[seed] for seed in seeds]
    bits = [
        [sum(nats) / math.log(2) for nats in zip(*(side[seed]["score"]["document_nll"] for seed in seeds), strict=True)]
        for side in (found, unchanged)
    ]
    sizes = [len(seeds) * size for size in runs[0]["score"]["document_bytes"]]
    difference = paired_difference(bits[0], bits[1], sizes)
    return {
        "seeds": seeds,
        "bpb": [run["score"]["bpb"] for run in runs],
        "mean": statistics.mean(run["score"]["bpb"] for run in runs),
        "tokens": statistics.mean(run["tokens"] for run in runs),
        "difference": difference.estimate,
        "interval_95": [difference.low, difference.high],
    }
