"""Loading a model of 1.5 billion parameters: groundup beside transformers, seconds and peak memory.

    python benchmarks/import_load.py [--rounds 5] [--layers 28]

A random model of Qwen2.5-1.5B's shape is written as bf16 safetensors, once. Each load runs in a process of its own, in
turn, who begins changes from round to round; the file is in the page cache. Timed are the
call that loads, and that with a forward pass of one token behind it, which touches every weight: both map files, so the
first may read nothing. CPU seconds are of both together, and drift less on a busy machine. Memory is the peak of the
process's resident set, Python and torch included, over the bytes of the weights in the dtype that was asked for. The
last line is one JSON object; ratios are ours over theirs, medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WHO = ("groundup", "transformers")
DTYPES = {"bfloat16": 2, "float32": 4}  # as stored; converted


def main() -> None:
    """Measure, print a table, end with the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--load", nargs=3, metavar=("WHO", "DIRECTORY", "DTYPE"), help=argparse.SUPPRESS)
    parser.add_argument("--write", metavar="DIRECTORY", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        print(write_model(options.write, options.layers))
        return
    if options.load:
        print(json.dumps(load(*options.load)))
        return
    with tempfile.TemporaryDirectory(prefix="import-load-") as work:
        directory = Path(work) / "model"
        writing = [sys.executable, __file__, "--write", str(directory), "--layers", str(options.layers)]
        parameters = int(subprocess.run(writing, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"{parameters / 1e9:.3f}B parameters; {options.rounds} rounds", file=sys.stderr)
        # Both with the threads that they choose themselves: transformers loads on several.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "MALLOC_"))}
        runs: dict[str, dict[str, list[dict[str, float]]]] = {}
        for dtype in options.dtypes.split(","):
            runs[dtype] = {who: [] for who in WHO}
            for round_ in range(options.rounds):
                for path in directory.glob("*.safetensors"):  # into the page cache
                    with path.open("rb") as file:
                        while file.read(1 << 24):
                            pass
                for who in WHO if round_ % 2 == 0 else reversed(WHO):
                    command = [sys.executable, __file__, "--load", who, str(directory), dtype]
                    told = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
                    runs[dtype][who].append(json.loads(told.splitlines()[-1]))
    print(json.dumps(summary(runs, parameters, options)))


def write_model(directory: Path, layers: int) -> int:
    """Qwen2.5-1.5B's shape with random bf16 weights, made one at a time; returns its parameters."""
    import torch
    from torch import Tensor

    from groundup.hub import SpecialTokenIds, save_weights
    from groundup.model import ModelConfig, Transformer

    config = ModelConfig("qwen2", 1536, layers, 12, 2, 128, 8960, 151_936, 32_768, rope_theta=1e6)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}

    class Random(Mapping[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            generator = torch.Generator().manual_seed(hash(shapes[name]) % 2**31)
            return torch.empty(shapes[name], dtype=torch.bfloat16).normal_(std=0.02, generator=generator)

        def __iter__(self) -> Iterator[str]:
            return iter(shapes)

        def __len__(self) -> int:
            return len(shapes)

    save_weights(directory, config, Random(), SpecialTokenIds(0, 0))
    return sum(shape.numel() for name, shape in shapes.items() if name != "lm_head.weight")


def load(who: str, directory: str, dtype: str) -> dict[str, float]:
    """Load in this process; seconds and bytes."""
    import torch

    ids = torch.tensor([[1]])
    wanted = getattr(torch, dtype)
    if who == "groundup":
        from groundup.hub import load_model

        before, cpu, started = peak_bytes(), cpu_seconds(), time.perf_counter()
        model: Any = load_model(Path(directory), dtype=wanted)
    else:
        from transformers import AutoModelForCausalLM
        from transformers.models.qwen2 import modeling_qwen2  # noqa: F401  imported before the clock starts

        before, cpu, started = peak_bytes(), cpu_seconds(), time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=wanted).eval()
    loaded, at_load = time.perf_counter() - started, peak_bytes()
    with torch.inference_mode():
        model(ids)
    return {
        "load_seconds": loaded,
        "load_and_use_seconds": time.perf_counter() - started,
        "cpu_seconds": cpu_seconds() - cpu,
        "bytes_before": before,
        "peak_bytes_loaded": at_load,
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """Of the resident set of this process, so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure is inherited from the parent
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu_seconds() -> float:
    """Of this process, in user and kernel mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def summary(
    runs: Mapping[str, Mapping[str, list[dict[str, float]]]], parameters: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Medians, ratios by round, and a table on stderr."""
    told: dict[str, Any] = {"parameters": parameters, "rounds": options.rounds, "machine": platform.processor()}
    for dtype, by_who in runs.items():
        weights = parameters * DTYPES[dtype]
        figures: dict[str, Any] = {"weight_bytes": weights, "runs": by_who}
        for key in ("load_seconds", "load_and_use_seconds", "cpu_seconds", "peak_bytes"):
            pairs = zip(*(by_who[who] for who in WHO), strict=True)
            figures[f"{key}_ratio"] = statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)
            for who in WHO:
                figures[f"{key}_{who}"] = statistics.median(run[key] for run in by_who[who])
        for who in WHO:
            figures[f"peak_over_weights_{who}"] = figures[f"peak_bytes_{who}"] / weights
            print(
                f"{dtype:9} {who:12} load {figures[f'load_seconds_{who}']:6.2f} s, with a pass "
                f"{figures[f'load_and_use_seconds_{who}']:6.2f} s (CPU {figures[f'cpu_seconds_{who}']:.2f} s), "
                f"peak {figures[f'peak_bytes_{who}'] / 1e9:5.2f} GB = "
                f"{figures[f'peak_over_weights_{who}']:.2f} x the weights",
                file=sys.stderr,
            )
        told[dtype] = figures
    return told


if __name__ == "__main__":
    main()
