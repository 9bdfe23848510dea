"""Compare the time and the peak memory of loading a model with 1.5 billion parameters with transformers.

    python -m benchmarks.import_load [--rounds 5] [--layers 28]

The benchmark writes a random model with the shape of Qwen2.5-1.5B as bf16 safetensors. Each load runs in a new process
while the file is in the page cache. The order of the two libraries alternates. The benchmark measures the time of
loading, and the time of loading plus a forward pass of one token, because both libraries map files into memory and may
read them later. CPU seconds include loading and the forward pass. Memory is the peak resident set size divided by the
size of the weights in the requested dtype. A ratio is the value of groundup divided by the value of transformers. The
results are medians over the rounds. The last line of the output is a JSON object.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.random_model import RandomWeights, qwen_config

LIBRARIES = ("groundup", "transformers")
DTYPES = {"bfloat16": 2, "float32": 4}  # bytes per parameter; the model is stored in bf16


def main() -> None:
    """Run the measurements, and print a table and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--load", nargs=3, metavar=("LIBRARY", "DIRECTORY", "DTYPE"), help=argparse.SUPPRESS)
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
        program = [sys.executable, "-m", "benchmarks.import_load"]
        writing = [*program, "--write", str(directory), "--layers", str(options.layers)]
        parameters = int(subprocess.run(writing, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"{parameters / 1e9:.3f}B parameters; {options.rounds} rounds", file=sys.stderr)
        # Both libraries use their default number of threads. transformers loads a model with several threads.
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "MALLOC_"))}
        runs: dict[str, dict[str, list[dict[str, float]]]] = {}
        for dtype in options.dtypes.split(","):
            runs[dtype] = {library: [] for library in LIBRARIES}
            for round_ in range(options.rounds):
                for path in directory.glob("*.safetensors"):  # read the file into the page cache
                    with path.open("rb") as file:
                        while file.read(1 << 24):
                            pass
                for who in LIBRARIES if round_ % 2 == 0 else reversed(LIBRARIES):
                    command = [*program, "--load", who, str(directory), dtype]
                    output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
                    runs[dtype][who].append(json.loads(output.splitlines()[-1]))
    print(json.dumps(summary(runs, parameters, options)))


def write_model(directory: Path, layers: int) -> int:
    """Write a random bf16 model one tensor at a time, and return its number of parameters."""
    from groundup.hub import SpecialTokenIds, save_weights

    config = qwen_config(layers=layers)
    weights = RandomWeights(config)
    save_weights(directory, config, weights, SpecialTokenIds(0, 0))
    return weights.parameters


def load(who: str, directory: str, dtype: str) -> dict[str, float]:
    """Load the model in this process, and return the times in seconds and the memory in bytes."""
    import torch

    ids = torch.tensor([[1]])
    torch_dtype = getattr(torch, dtype)
    if who == "groundup":
        from groundup.hub import load_model

        before, cpu, started = peak_bytes(), cpu_seconds(), time.perf_counter()
        model: Any = load_model(Path(directory), dtype=torch_dtype)
    else:
        from transformers import AutoModelForCausalLM
        from transformers.models.qwen2 import modeling_qwen2  # noqa: F401  import before the measurement

        before, cpu, started = peak_bytes(), cpu_seconds(), time.perf_counter()
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch_dtype).eval()
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
    """Return the peak resident set size of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage is not used, because a process inherits the peak of its parent
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def cpu_seconds() -> float:
    """Return the CPU time of this process in seconds, in user and kernel mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def summary(
    runs: Mapping[str, Mapping[str, list[dict[str, float]]]], parameters: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the medians and ratios, and print them as a table to stderr."""
    result: dict[str, Any] = {"parameters": parameters, "rounds": options.rounds, "machine": platform.processor()}
    for dtype, by_who in runs.items():
        weights = parameters * DTYPES[dtype]
        figures: dict[str, Any] = {"weight_bytes": weights, "runs": by_who}
        for key in ("load_seconds", "load_and_use_seconds", "cpu_seconds", "peak_bytes"):
            pairs = zip(*(by_who[who] for who in LIBRARIES), strict=True)
            figures[f"{key}_ratio"] = statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)
            for who in LIBRARIES:
                figures[f"{key}_{who}"] = statistics.median(run[key] for run in by_who[who])
        for who in LIBRARIES:
            figures[f"peak_over_weights_{who}"] = figures[f"peak_bytes_{who}"] / weights
            print(
                f"{dtype:9} {who:12} load {figures[f'load_seconds_{who}']:6.2f} s, with a pass "
                f"{figures[f'load_and_use_seconds_{who}']:6.2f} s (CPU {figures[f'cpu_seconds_{who}']:.2f} s), "
                f"peak {figures[f'peak_bytes_{who}'] / 1e9:5.2f} GB = "
                f"{figures[f'peak_over_weights_{who}']:.2f} x the weights",
                file=sys.stderr,
            )
        result[dtype] = figures
    return result


if __name__ == "__main__":
    main()
