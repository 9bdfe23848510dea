"""`python -m benchmarks.pretrain`: compare pretraining with other programs. benchmarks/README.md describes the parts.

The benchmark prints tables. The last line of the output is a JSON object.
"""

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
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.pretrain.ablation import ablate, ablation_table
from benchmarks.pretrain.contenders import Peers, cpu_contenders, gpu_contenders, match_nanochat
from benchmarks.pretrain.encode import encode_figure
from benchmarks.pretrain.peak import PeakProbe
from benchmarks.pretrain.processes import ProcessRunner
from benchmarks.pretrain.quality import compare_quality
from benchmarks.pretrain.report import (
    KEYS,
    details,
    figure_line,
    figures,
    gpu_figures,
    quality_table,
    speed_table,
    tflops,
)
from benchmarks.pretrain.shapes import CPU_SHAPES, GPU_SHAPES, TINY
from benchmarks.pretrain.speed import time_shape
from benchmarks.pretrain.start import time_start
from benchmarks.pretrain.tokens import write_random_tokens

_PARTS = ("speed", "quality", "start", "ablation", "encode")
_SHORT = {
    "part": "speed,encode",
    "shapes": "quickstart,a,b",
    "contenders": "groundup, AdamW;groundup, Muon;nanoGPT, default;nanoGPT, bf16;nanoGPT, optimized",
    "rounds": 3,
    "seconds": 5.0,
    "warmup_steps": 1,
    "min_steps": 2,
    "limit": 11.0,
}


def main() -> None:
    """Measure the selected parts and print the results."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the measured process is also stopped
    directory = Path(options.work or tempfile.mkdtemp(prefix="bench-pretrain-")).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    if not options.compiled:
        shutil.rmtree(directory / "kernels", ignore_errors=True)
    runner = ProcessRunner(directory, options.threads)
    peers = Peers.find()
    _log(f"Logs and caches: {directory}")
    for name, reason in peers.absent.items():
        _log(f"{name} is skipped: {reason}")
    summary: dict[str, Any] = dict.fromkeys(KEYS)
    rest: dict[str, Any] = {"machine": _machine(), "left_out": peers.absent, "figures": {}, "tflops": {}}
    parts = options.part.split(",")
    if "speed" in parts:
        _speed(options, runner, peers, rest)
    if {"quality", "start", "ablation", "encode"} & set(parts):
        tokens = _text(options.tokens)
        if tokens is None:
            rest["left_out"]["text"] = "TOKENS or --tokens is not an output directory of groundup tokenize"
            _log(f"Parts that need text are skipped: {rest['left_out']['text']}")
        if tokens and "encode" in parts:
            rest["figures"]["encode_mb_s"] = encode_figure(tokens, rounds=options.rounds, log=_log).to_json()
        if tokens and "ablation" in parts:
            selected = partial(_selected, options.contenders)
            rest["ablation"] = ablate(
                runner, tokens, minutes=options.minutes, seeds=options.seeds, selected=selected, log=_log
            )
            _log("\n" + ablation_table(rest["ablation"]))
        if tokens and "start" in parts:
            rest["start"] = time_start(runner, tokens, rounds=options.rounds, log=_log)
        if tokens and "quality" in parts:
            rest["quality"] = compare_quality(
                peers,
                runner,
                tokens,
                minutes=options.minutes,
                seeds=options.seeds,
                documents=options.documents,
                selected=partial(_selected, options.contenders),
                log=_log,
            )
            _log("\n" + quality_table(rest["quality"]))
            rest["figures"]["bpb_margin"] = rest["quality"]["bpb_margin"]
    estimates = {key: figure["estimate"] for key, figure in rest["figures"].items() if figure} | rest["tflops"]
    summary |= {key: value for key, value in estimates.items() if key in summary}
    if not options.work:
        shutil.rmtree(directory / "kernels", ignore_errors=True)
    print(json.dumps(_finite(summary | rest)), flush=True)


def _speed(options: argparse.Namespace, runner: ProcessRunner, peers: Peers, rest: dict[str, Any]) -> None:
    gpu = options.device == "cuda"
    shapes = {"tiny": TINY} | (GPU_SHAPES if gpu else CPU_SHAPES)
    chosen = options.shapes.split(",") if options.shapes else list(GPU_SHAPES if gpu else CPU_SHAPES)
    matched = match_nanochat(peers.nanochat, runner.directory) if peers.nanochat else None
    probe = None if gpu else PeakProbe.build(runner.directory, options.threads)
    if probe is None and not gpu:
        _log("The peak of the CPU is not measured: no C++ compiler, or no AVX2")
    ends = time.time() + 60 * options.limit if options.limit else None
    for number, name in enumerate(chosen):
        shape = shapes[name]
        if options.rows:
            shape = replace(shape, rows=options.rows)
        tokens = runner.directory / "tokens" / str(shape.vocab_size)
        if not tokens.is_dir():
            write_random_tokens(tokens, shape.vocab_size)
        contenders = gpu_contenders(peers, matched) if gpu else cpu_contenders(peers, name, matched)
        contenders = [each for each in contenders if _selected(options.contenders, each.name)]
        timings, ceilings = time_shape(
            shape,
            contenders,
            runner,
            tokens,
            device=options.device,
            rounds=options.rounds,
            seconds=options.seconds,
            warmup_steps=options.warmup_steps,
            min_steps=options.min_steps,
            # Shape b is GPT-2 124M, so its family is GPT-2. Other families do not tie the embeddings, so they would
            # have a third more parameters.
            family=options.family or ("qwen3" if name in ("a", "quickstart") else "gpt2"),
            compiled=options.compiled,
            probe=probe,
            deadline=ends and time.time() + (ends - time.time()) / (len(chosen) - number),
            log=_log,
        )
        _log("\n" + speed_table(shape, timings, ceilings))
        results = gpu_figures(timings) if gpu else figures(shape, timings)
        for key, figure in results.items():
            _log("  " + figure_line(key, figure))
            rest["figures"][f"gpu_{name}_{key}" if gpu else key] = figure.to_json()
        rest["tflops"] |= {} if gpu else tflops(shape, timings)
        rest.setdefault("speed", {})[name] = details(shape, timings, ceilings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretrain", description=__doc__)
    parser.add_argument(
        "--part",
        default="speed,quality,start,encode",
        help=f"parts to measure, comma-separated: {', '.join(_PARTS)} [all except ablation]",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--shapes", help="comma-separated shapes; cpu: a, quickstart, b; cuda: 124m, 350m; quick test: tiny"
    )
    parser.add_argument("--contenders", help="prefixes of names, separated by ';' [all]")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds and of warm starts [5]")
    parser.add_argument("--seconds", type=float, default=20.0, help="minimum seconds of measured steps per round [20]")
    parser.add_argument("--min-steps", type=int, default=3, help="minimum number of measured steps per round [3]")
    parser.add_argument("--warmup-steps", type=int, default=3, help="number of steps before the measured steps [3]")
    parser.add_argument("--limit", type=float, help="maximum minutes of the part speed, by fewer rounds [no limit]")
    parser.add_argument(
        "--short", action="store_true", help="speed compared with nanoGPT, and encoding, in 12 minutes on 2 cores"
    )
    parser.add_argument("--rows", type=int, help="batch size [of the shape]")
    parser.add_argument("--family", choices=("qwen3", "llama", "gpt2"), help="model family of groundup [see README]")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes per training for quality [10]")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of groundup [3]")
    parser.add_argument("--documents", type=int, help="number of held-out documents to score [all]")
    parser.add_argument(
        "--tokens", default=os.environ.get("TOKENS"), help="output directory of groundup tokenize [$TOKENS]"
    )
    parser.add_argument("--threads", type=int, help="threads of all programs [default of each]")
    parser.add_argument("--work", help="directory for logs, caches and models [a temporary directory]")
    parser.add_argument(
        "--compiled", action="store_true", help="skip the first pass, because --work has compiled kernels"
    )
    options = parser.parse_args()
    if options.short:
        parser.set_defaults(**_SHORT)
        options = parser.parse_args()
    unknown = set(options.part.split(",")) - set(_PARTS)
    if unknown:
        parser.error(f"--part {', '.join(sorted(unknown))}: choose from {', '.join(_PARTS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no CUDA device found")
    return options


def _selected(prefixes: str | None, name: str) -> bool:
    return prefixes is None or any(name.lower().startswith(prefix.strip().lower()) for prefix in prefixes.split(";"))


def _text(directory: str | None) -> Path | None:
    """Return the directory of token shards of real text. The default is the output of the quickstart."""
    path = Path(directory or "runs/quickstart/tokens").resolve()
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
    """Replace infinite bounds of intervals by null, because JSON does not support infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _log(line: str) -> None:
    print(line, file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
