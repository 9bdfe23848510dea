"""`python -m benchmarks.pretrain`: tables for people on the way, one JSON object last. README.md explains it."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.pretrain.ablation import ablate, ablation_table
from benchmarks.pretrain.contenders import Peers, cpu_contenders, gpu_contenders, match_nanochat
from benchmarks.pretrain.processes import Workplace
from benchmarks.pretrain.quality import compare_quality
from benchmarks.pretrain.report import (
    KEYS,
    details,
    figure_line,
    figures,
    gpu_figures,
    quality_table,
    speed_table,
)
from benchmarks.pretrain.shapes import CPU_SHAPES, GPU_SHAPES, TINY
from benchmarks.pretrain.speed import time_shape
from benchmarks.pretrain.start import time_start
from benchmarks.pretrain.tokens import write_random_tokens

_PARTS = ("speed", "quality", "start", "ablation")


def main() -> None:
    """Measure the parts that were asked for, print, end with the JSON object."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # an exit ends the process being timed, too
    directory = Path(options.work or tempfile.mkdtemp(prefix="bench-pretrain-")).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    if not options.compiled:
        shutil.rmtree(directory / "kernels", ignore_errors=True)
    place = Workplace(directory, options.threads)
    peers = Peers.find()
    _say(f"Logs and caches: {directory}")
    for name, reason in peers.absent.items():
        _say(f"{name} is left out: {reason}")
    summary: dict[str, Any] = dict.fromkeys(KEYS)
    rest: dict[str, Any] = {"machine": _machine(), "left_out": peers.absent, "figures": {}}
    parts = options.part.split(",")
    if "speed" in parts:
        _speed(options, place, peers, rest)
    if {"quality", "start", "ablation"} & set(parts):
        tokens = _text(options.tokens)
        if tokens is None:
            rest["left_out"]["text"] = "none: TOKENS or --tokens names no directory of groundup tokenize"
            _say(f"What needs text is left out, {rest['left_out']['text']}")
        if tokens and "ablation" in parts:
            wanted = partial(_wanted, options.contenders)
            rest["ablation"] = ablate(
                place, tokens, minutes=options.minutes, seeds=options.seeds, wanted=wanted, say=_say
            )
            _say("\n" + ablation_table(rest["ablation"]))
        if tokens and "start" in parts:
            rest["start"] = time_start(place, tokens, rounds=options.rounds, say=_say)
        if tokens and "quality" in parts:
            rest["quality"] = compare_quality(
                peers,
                place,
                tokens,
                minutes=options.minutes,
                seeds=options.seeds,
                documents=options.documents,
                wanted=partial(_wanted, options.contenders),
                say=_say,
            )
            _say("\n" + quality_table(rest["quality"]))
            rest["figures"]["bpb_margin"] = rest["quality"]["bpb_margin"]
    for key, figure in rest["figures"].items():
        if key in summary and figure:
            summary[key] = figure["estimate"]
    if not options.work:
        shutil.rmtree(directory / "kernels", ignore_errors=True)
    print(json.dumps(_finite(summary | rest)), flush=True)


def _speed(options: argparse.Namespace, place: Workplace, peers: Peers, rest: dict[str, Any]) -> None:
    gpu = options.device == "cuda"
    shapes = {"tiny": TINY} | (GPU_SHAPES if gpu else CPU_SHAPES)
    chosen = options.shapes.split(",") if options.shapes else list(GPU_SHAPES if gpu else CPU_SHAPES)
    matched = match_nanochat(peers.nanochat, place.directory) if peers.nanochat else None
    for name in chosen:
        shape = shapes[name]
        if options.rows:
            shape = replace(shape, rows=options.rows)
        tokens = place.directory / "tokens" / str(shape.vocab_size)
        if not tokens.is_dir():
            write_random_tokens(tokens, shape.vocab_size)
        contenders = gpu_contenders(peers, matched) if gpu else cpu_contenders(peers, name, matched)
        contenders = [one for one in contenders if _wanted(options.contenders, one.name)]
        timed, products = time_shape(
            shape,
            contenders,
            place,
            tokens,
            device=options.device,
            rounds=options.rounds,
            seconds=options.seconds,
            # Shape b is GPT-2 124M itself: our other families would tie no head, and have a third more parameters.
            family=options.family or ("qwen3" if name == "a" else "gpt2"),
            compiled=options.compiled,
            say=_say,
        )
        _say("\n" + speed_table(shape, timed, products))
        found = gpu_figures(timed) if gpu else figures(shape, timed)
        for key, figure in found.items():
            _say("  " + figure_line(key, figure))
            rest["figures"][f"gpu_{name}_{key}" if gpu else key] = figure.to_json()
        rest.setdefault("speed", {})[name] = details(shape, timed, products)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrain", description=__doc__)
    parser.add_argument(
        "--part", default="speed,quality,start", help="of speed, quality, start, ablation; comma-separated"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shapes", help="comma-separated; cpu: a,b  cuda: 124m,350m  to try things out: tiny")
    parser.add_argument("--contenders", help="only those whose names begin so, separated by ';'")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; warm starts, too")
    parser.add_argument("--seconds", type=float, default=20.0, help="of steps timed in each round, 3 steps at least")
    parser.add_argument("--rows", type=int, help="windows a step instead of the shape's own")
    parser.add_argument("--family", choices=("qwen3", "llama", "gpt2"), help="of our model; default: see README")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training for quality")
    parser.add_argument("--seeds", type=int, default=3, help="of ours")
    parser.add_argument("--documents", type=int, help="score only so many held-out documents")
    parser.add_argument("--tokens", default=os.environ.get("TOKENS"), help="directory of groundup tokenize [$TOKENS]")
    parser.add_argument("--threads", type=int, help="of everyone; default: each program's own choice")
    parser.add_argument("--work", help="keep logs, caches and models in this directory; default: a temporary one")
    parser.add_argument(
        "--compiled", action="store_true", help="--work holds an earlier run's kernels: skip the pass that compiles"
    )
    options = parser.parse_args()
    unknown = set(options.part.split(",")) - set(_PARTS)
    if unknown:
        parser.error(f"--part {', '.join(sorted(unknown))}: the parts are {', '.join(_PARTS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here")
    return options


def _wanted(beginnings: str | None, name: str) -> bool:
    return beginnings is None or any(name.lower().startswith(one.strip().lower()) for one in beginnings.split(";"))


def _text(given: str | None) -> Path | None:
    """Token shards of real text: what was named, else what the quickstart left here."""
    path = Path(given or "runs/quickstart/tokens").resolve()
    return path if (path / "index.json").is_file() else None


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "torch": torch.__version__,
    }


def _finite(value: Any) -> Any:
    """JSON has no infinities: the open ends of an interval become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
