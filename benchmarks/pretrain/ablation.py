"""Ablation of training choices. Each variant of training has one change and is trained for the same time."""

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
from benchmarks.pretrain.processes import ContenderError, ProcessRunner
from benchmarks.pretrain.result_cache import cached
from benchmarks.pretrain.shapes import Shape
from groundup.data import TokenShards
from groundup.evaluation.stats import paired_difference

Log = Callable[[str], None]


def ablate(
    runner: ProcessRunner, tokens: Path, *, minutes: float, seeds: int, selected: Callable[[str], bool], log: Log
) -> dict[str, Any]:
    """Train each variant for `minutes` with each seed, and score it on the held-out documents.

    All variants with the same seed are trained in one round, so that changes in the load of the machine affect all
    variants. The time includes the start of the process. A separate process compiles each variant first. If an earlier
    command used the same --work directory, its results are reused.

    Returns:
        A dict for each variant: `bpb` has the bits per byte for each seed, `mean` is their mean, and `tokens` is the
        number of tokens seen. `difference` is the difference in bits per byte from the baseline, paired over documents
        and seeds, with its 95 % interval.
    """
    shape = Shape("ablation", n_layers=4, dim=256, n_heads=4, context=512, vocab_size=0, rows=16)
    shape = replace(shape, vocab_size=TokenShards(tokens, "train").vocab_size)
    variants = [variant for variant in get_args(Variant) if variant == "baseline" or selected(variant)]
    runs: dict[str, dict[int, dict[str, Any]]] = {variant: {} for variant in variants}
    compiled: set[Variant] = set()

    def train(variant: Variant, seed: int) -> dict[str, Any]:
        if variant not in compiled:
            _train(runner, tokens, shape, variant, seed=0, seconds=1, documents=1)
            compiled.add(variant)
        return _train(runner, tokens, shape, variant, seed=seed, seconds=60 * minutes)

    for seed in range(seeds):
        for variant in variants:
            settings = {"shape": asdict(shape), "variant": variant, "seed": seed, "minutes": minutes}
            try:
                run = cached(runner, f"{_name(variant)}-{seed}", settings, tokens, partial(train, variant, seed))
            except ContenderError as error:
                log(f"{variant}, seed {seed}: skipped, {error}")
                continue
            runs[variant][seed] = run
            log(f"{variant}, seed {seed}: {run['score']['bpb']:.4f} bits per byte, {run['tokens']:,} tokens")
    baseline = runs["baseline"]
    return {variant: _summary(run, baseline) for variant, run in runs.items() if run.keys() & baseline.keys()}


def ablation_table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table for benchmarks/ablations.md."""
    lines = [
        "| | bits per byte, by seed | tokens seen | difference (95 %) |",
        "| --- | --- | ---: | --- |",
    ]
    for variant, result in results.items():
        low, high = result["interval_95"]
        scores = ", ".join(f"{bpb:.4f}" for bpb in result["bpb"])
        difference = "" if variant == "baseline" else f"{result['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
        lines.append(f"| {variant} | {scores} | {result['tokens'] / 1e6:.1f} M | {difference} |")
    return "\n".join(lines)


def _train(
    runner: ProcessRunner,
    tokens: Path,
    shape: Shape,
    variant: Variant,
    *,
    seed: int,
    seconds: float,
    documents: int | None = None,
) -> dict[str, Any]:
    name = _name(variant)
    job = Job(
        "groundup_trainer",
        shape,
        tokens,
        matrices="adamw" if variant == "AdamW" else "muon",
        seed=seed,
        variant=variant,
    )
    started = time.time()
    clock = {"started": started, "deadline": started + seconds}
    request = {"job": job.to_json(), "clock": clock, "documents": documents}
    result = runner.run_worker(f"{name}-{seed}", request, runner.environment(name))
    return {"tokens": result["tokens"], "score": result["score"]}


def _name(variant: Variant) -> str:
    return f"ablation-{variant}".replace(" ", "-")


def _summary(variant: Mapping[int, dict[str, Any]], baseline: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted(variant.keys() & baseline.keys())
    runs = [variant[seed] for seed in seeds]
    bits = [
        [sum(nats) / math.log(2) for nats in zip(*(side[seed]["score"]["document_nll"] for seed in seeds), strict=True)]
        for side in (variant, baseline)
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
