"""A saved 4-bit model of Qwen2.5-1.5B's shape: time to the first token, memory and speed, compared with llama.cpp.

The model has random weights and the vocabulary of MODEL. It is written to the directory LARGE, as Q4_1 for groundup and
as Q4_K_M for llama.cpp, unless the files exist. `groundup generate` gives the time to the first token and the memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.inference.options import model_of, parser_of
from benchmarks.inference.speed import ratio
from benchmarks.random_model import RandomWeights, qwen_config
from groundup.core.console import Console
from groundup.evaluation.speed.report import BenchmarkSettings, run_benchmark
from groundup.hub.gguf import FileType, GgufFile, tokenizer_to_gguf, write_gguf
from groundup.hub.loading import load_tokenizer, open_model
from groundup.inference.speed import SpeedTest

PROMPT_TOKENS = 32
_LAYERS = 28


def main() -> None:
    """Write the files, start `groundup generate` several times, and measure both engines in turns."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--large", default=os.environ.get("LARGE"), help="directory for the model files [$LARGE]")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="tokens of a prompt [512]")
    parser.add_argument("--output-tokens", type=int, default=64, help="tokens of an output [64]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds per side [3]")
    options = parser.parse_args()
    if not options.large:
        print("skipped: set LARGE to a directory for files of 2 GB (benchmarks/README.md)")
        print("{}")
        return
    vocabulary, folder = model_of(options), Path(options.large)
    path = write_model(folder / "random-q4_1.gguf", "q4_1", vocabulary)
    peers = [write_model(folder / "random-q4_k_m.gguf", "q4_k", vocabulary)] if options.peer else []
    starts = [first_token(path, options.threads) for _ in range(options.rounds)]
    settings = BenchmarkSettings(
        dtypes=("bfloat16",),  # of the weights that are not quantized
        threads=options.threads,
        prompt_tokens=(options.prompt_tokens,),
        depths=(options.prompt_tokens,),
        batch_sizes=(1,),
        output_tokens=options.output_tokens,
        rounds=options.rounds,
        gguf=tuple(peers),
        llama_cpp=Path(options.peer) if options.peer else None,
    )
    found = run_benchmark(open_model(path, device="cpu", as_stored=True), settings, Console())
    facts = {
        "int4_1p5b_vs_q4": ratio(found, SpeedTest(1, options.prompt_tokens, options.output_tokens), "decode"),
        "prefill_1p5b_vs_q4": ratio(found, SpeedTest(1, options.prompt_tokens), "prefill"),
        "first_token_seconds": min(start["first_token_seconds"] for start in starts),
        "bytes_beyond_weights": max(start["peak_bytes"] for start in starts) - weight_bytes(path),
        "bits_per_weight": {file.stem: bits_per_weight(file) for file in (path, *peers)},
    }
    print(json.dumps(facts | {"figures": found.to_json()}))


def write_model(path: Path, kind: FileType, vocabulary_of: Path, layers: int = _LAYERS) -> Path:
    """Write the model as a GGUF file, one tensor at a time, if the file does not exist.

    Args:
        path: Output file.
        kind: Type of the matrices.
        vocabulary_of: Model directory with the tokenizer.
        layers: Number of layers.
    """
    if not path.is_file():
        tokenizer = load_tokenizer(vocabulary_of)
        config = qwen_config(tokenizer.min_vocab_size, layers)
        path.parent.mkdir(parents=True, exist_ok=True)
        vocabulary = tokenizer_to_gguf(tokenizer.definition, tokenizer.config, config.vocab_size)
        write_gguf(path, config, RandomWeights(config), vocabulary.metadata, kind)
    return path


def weight_bytes(path: Path) -> int:
    """Return the bytes of all tensors in a GGUF file."""
    return sum(tensor.n_bytes for tensor in GgufFile(path).tensors.values())


def bits_per_weight(path: Path) -> float:
    """Return the average number of bits per weight in a GGUF file."""
    tensors = GgufFile(path).tensors.values()
    values = sum(tensor.shape[0] * (tensor.shape[1] if len(tensor.shape) > 1 else 1) for tensor in tensors)
    return 8 * weight_bytes(path) / values


def prompt_text(path: Path) -> str:
    """Return a text of 32 tokens."""
    tokenizer = load_tokenizer(path)
    ids = tokenizer.encode("The old man and the young dog walked along the river until they saw a small boat. " * 3)
    return tokenizer.decode(ids[:PROMPT_TOKENS])


def first_token(path: Path, threads: int) -> dict[str, Any]:
    """Run `groundup generate` on a prompt of 32 tokens.

    Returns:
        The seconds from the start of the process to the first byte of the output, and the peak memory in bytes.
    """
    with path.open("rb") as file:  # read the file into the page cache
        while file.read(1 << 24):
            pass
    options = ["--max-tokens", "16", "--temperature", "0"]
    command = [sys.executable, "-m", "groundup", "generate", str(path), prompt_text(path), *options]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - started
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.stdout.read()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return {"first_token_seconds": seconds, "peak_bytes": 1024 * int(found[1])}


if __name__ == "__main__":
    main()
