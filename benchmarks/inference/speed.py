"""Prefill and decode speed compared with llama.cpp, measured by the function of `groundup bench`.

GGUF is a directory with the model in Q8_0, bf16 and 4-bit types, as `groundup export gguf` writes them. The best round
of each side counts. For llama.cpp, this includes the setting of flash attention. int4 is compared with its best 4-bit
type. Decode at batch 8 counts only the time in which all requests decode; `batch8_with_prefill_vs_q8` includes prefill.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.inference.options import gguf_files, model_of, parser_of
from groundup.core.console import Console
from groundup.core.types import InferenceDtype
from groundup.evaluation.speed.report import Benchmark, BenchmarkSettings, run_benchmark
from groundup.hub.loading import open_model
from groundup.inference.speed import SpeedTest

_FILES: Mapping[InferenceDtype, str] = {"int8": "*q8_0.gguf", "int4": "*q4_*.gguf", "bfloat16": "*bf16.gguf"}


def main() -> None:
    """Measure each weight format and llama.cpp's type of the same size in turns."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--dtype", action="append", choices=tuple(_FILES), help="weight formats [all]")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="tokens of a prompt [512]")
    parser.add_argument("--output-tokens", type=int, default=64, help="tokens of an output [64]")
    parser.add_argument("--requests", type=int, default=8, help="concurrent requests [8]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per side [3]")
    options = parser.parse_args()
    opened = open_model(model_of(options), device="cpu")
    found: dict[str, Benchmark] = {}
    dtypes: list[InferenceDtype] = options.dtype or list(_FILES)
    for dtype in dtypes:
        settings = BenchmarkSettings(
            dtypes=(dtype,),
            threads=options.threads,
            prompt_tokens=(options.prompt_tokens,),
            depths=(options.prompt_tokens,),
            batch_sizes=(1, options.requests),
            output_tokens=options.output_tokens,
            rounds=options.rounds,
            gguf=gguf_files(options, _FILES[dtype]),
            llama_cpp=Path(options.peer) if options.peer else None,
        )
        found[dtype] = run_benchmark(opened, settings, Console())
        print(dtype, json.dumps(found[dtype].to_json()), flush=True)
    prefill = SpeedTest(1, options.prompt_tokens)
    decode = SpeedTest(1, options.prompt_tokens, options.output_tokens)
    batch = SpeedTest(options.requests, options.prompt_tokens, options.output_tokens)
    ratios = {
        "decode_int8_vs_q8": ratio(found.get("int8"), decode, "decode"),
        "decode_int4_vs_q4": ratio(found.get("int4"), decode, "decode"),
        "batch8_vs_q8": ratio(found.get("int8"), batch, "decode"),
        "batch8_with_prefill_vs_q8": ratio(found.get("int8"), batch, "with_prefill"),
        "prefill_vs_llama": ratio(found.get("int8"), prefill, "prefill"),
    }
    print(json.dumps(ratios | {"figures": {dtype: each.to_json() for dtype, each in found.items()}}))


def ratio(found: Benchmark | None, test: SpeedTest, figure: str) -> float | None:
    """Return the best result of groundup divided by the best one of llama.cpp, or None if one is missing.

    Args:
        found: Results of both engines.
        test: The compared test.
        figure: The compared figure of the test.
    """
    own, peer = (
        [
            tests[test][figure].best()
            for name, tests in (found.figures if found else {}).items()
            if name.startswith(engine) and figure in tests.get(test, {})
        ]
        for engine in ("groundup", "llama.cpp")
    )
    return max(own) / max(peer) if own and peer else None


if __name__ == "__main__":
    main()
