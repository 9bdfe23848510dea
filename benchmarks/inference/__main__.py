"""`python -m benchmarks.inference`: inference speed compared with llama.cpp; one JSON object last.

MODEL names a model directory, GGUF a directory with the model as GGUF files in Q8_0, Q4_1 or Q4_0, and bf16, as
`groundup export gguf` writes them. llama.cpp runs through xllamacpp in its own Python environment: PEER names its
interpreter. Each round measures each side once, in alternating order. The best round of a side counts, for llama.cpp
with and without flash attention. Prompts are random tokens, so that the prefix cache does not hold them. Output is
greedy.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from groundup.hub import load_model
from groundup.hub.resolve import load_tokenizer
from groundup.inference import Engine, GenerationRequest, Sampling
from groundup.inference.runner import NativeRunner
from groundup.kernels.packing import WeightFormat

_DRIVER = Path(__file__).parent / "drivers" / "llama_cpp.py"
_FILES: dict[WeightFormat, str] = {"int8": "*q8_0.gguf", "int4": "*q4_[01].gguf", "bfloat16": "*bf16.gguf"}
_KEYS = (
    "decode_int8_vs_q8",
    "decode_int4_vs_q4",
    "batch8_vs_q8",
    "prefill_vs_llama",
    "agreement_int8",
    "agreement_q8",
    "bpb_int8",
    "bpb_q8",
    "server8_vs_offline",
    "server64_vs_offline",
    "int4_1p5b_vs_q4",
    "same_tokens",
    "lost_answers",
)
GREEDY = Sampling(temperature=0)


def measure_groundup(engine: Engine, options: argparse.Namespace, numbers: random.Random) -> dict[str, float]:
    """Return prefill and decode throughput of one request, and the output tokens/s of concurrent requests."""

    def request(output_tokens: int) -> GenerationRequest:
        prompt = tuple(numbers.randrange(300, 40_000) for _ in range(options.prompt_tokens))
        return GenerationRequest(prompt=prompt, sampling=GREEDY, max_tokens=output_tokens, stop_ids=())

    times = []
    started = time.perf_counter()
    for _ in engine.stream(request(options.output_tokens)):
        times.append(time.perf_counter())
    started_all = time.perf_counter()
    streams = [engine.stream(request(options.output_tokens)) for _ in range(options.requests)]
    for stream in streams:
        for _ in stream:
            pass
    seconds = time.perf_counter() - started_all
    return {
        "prefill": options.prompt_tokens / (times[0] - started),
        "decode": (len(times) - 1) / (times[-1] - times[0]),
        "requests": options.requests * options.output_tokens / seconds,
    }


def measure_llama_cpp(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return the same figures of llama.cpp, each with the better setting of flash attention."""
    best: dict[str, float] = {}
    for flash_attention in (0, 1):
        numbers = (options.threads, options.prompt_tokens, options.output_tokens, options.requests, flash_attention, 2)
        command = [options.peer, str(_DRIVER), str(path), *map(str, numbers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        for key, value in json.loads(done.stdout.splitlines()[-1]).items():
            best[key] = max(best.get(key, 0.0), value)
    return best


def main() -> None:
    """Measure both sides in turns and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("MODEL"), help="model directory [$MODEL]")
    parser.add_argument("--gguf", default=os.environ.get("GGUF"), help="directory with GGUF files of the model [$GGUF]")
    parser.add_argument("--peer", default=os.environ.get("PEER"), help="Python that has xllamacpp [$PEER]")
    parser.add_argument("--dtype", action="append", choices=tuple(_FILES), help="weight formats [all]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [2]")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="tokens of a prompt [512]")
    parser.add_argument("--output-tokens", type=int, default=64, help="tokens of an output [64]")
    parser.add_argument("--requests", type=int, default=8, help="concurrent requests [8]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per side [3]")
    options = parser.parse_args()
    if not options.model:
        raise SystemExit("set MODEL to a model directory (benchmarks/README.md)")
    torch.set_num_threads(options.threads)
    model, tokenizer = load_model(Path(options.model)), load_tokenizer(Path(options.model))
    figures: dict[str, Any] = {}
    dtypes: list[WeightFormat] = options.dtype or list(_FILES)
    for dtype in dtypes:
        runner = NativeRunner(model, dtype, threads=options.threads)
        numbers = random.Random(0)
        with Engine(model, tokenizer, runner=runner, max_active=options.requests) as engine:
            measure_groundup(engine, options, numbers)
            sides: dict[str, Callable[[], dict[str, float]]] = {
                "groundup": partial(measure_groundup, engine, options, numbers)
            }
            files = sorted(Path(options.gguf).glob(_FILES[dtype])) if options.gguf and options.peer else []
            if files:
                sides["llama.cpp"] = partial(measure_llama_cpp, files[-1], options)
            best: dict[str, dict[str, float]] = {name: {} for name in sides}
            for number in range(options.rounds):
                for name in sorted(sides, reverse=number % 2 == 1):
                    for key, value in sides[name]().items():
                        best[name][key] = max(best[name].get(key, 0.0), value)
            figures[dtype] = best
        print(dtype, json.dumps(best), flush=True)
    print(json.dumps(_ratios(figures) | {"figures": figures}))


def _ratios(figures: dict[str, Any]) -> dict[str, float | None]:
    """Return the ratios to llama.cpp, None for what was not measured."""
    ratios: dict[str, float | None] = dict.fromkeys(_KEYS)
    for key, dtype, figure in (
        ("decode_int8_vs_q8", "int8", "decode"),
        ("decode_int4_vs_q4", "int4", "decode"),
        ("batch8_vs_q8", "int8", "requests"),
        ("prefill_vs_llama", "int8", "prefill"),
    ):
        sides = figures.get(dtype, {})
        if "llama.cpp" in sides:
            ratios[key] = sides["groundup"][figure] / sides["llama.cpp"][figure]
    return ratios


if __name__ == "__main__":
    main()
