"""Measure llama.cpp through xllamacpp on one GGUF file; print one JSON object.

python llama_cpp.py FILE THREADS PROMPT_TOKENS OUTPUT_TOKENS REQUESTS FLASH_ATTENTION ROUNDS
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

import xllamacpp  # type: ignore[import-not-found]


def main() -> None:
    """Run the server in this process and time single and concurrent requests."""
    path = sys.argv[1]
    threads, prompt_tokens, output_tokens, requests, flash_attention, rounds = map(int, sys.argv[2:])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel = requests
    params.n_ctx = requests * 2 * (prompt_tokens + output_tokens)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0
    params.verbosity = -1
    kinds = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = (
        kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    server = xllamacpp.Server(params)
    numbers = random.Random(0)

    def complete() -> dict[str, Any]:
        prompt = [numbers.randrange(300, 40_000) for _ in range(prompt_tokens)]
        body = {
            "prompt": prompt,
            "n_predict": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "cache_prompt": False,
        }
        done = server.handle_completions(body)
        timings: dict[str, Any] = (done[-1] if isinstance(done, list) else done)["timings"]
        return timings

    complete()
    single = [complete() for _ in range(rounds)]
    aggregate = []
    for _ in range(rounds):
        workers = [threading.Thread(target=complete) for _ in range(requests)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        aggregate.append(requests * output_tokens / (time.perf_counter() - started))
    print(
        json.dumps(
            {
                "prefill": max(timings["prompt_per_second"] for timings in single),
                "decode": max(timings["predicted_per_second"] for timings in single),
                "requests": max(aggregate),
            }
        )
    )


if __name__ == "__main__":
    main()
