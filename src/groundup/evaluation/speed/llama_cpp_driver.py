"""Measure llama.cpp through xllamacpp. This file runs by itself in a Python environment that has xllamacpp.

Command: `python llama_cpp_driver.py FILE.gguf THREADS FLASH_ATTENTION MAX_BATCH_SIZE MAX_TOKENS`. Each line on stdin is
a test, the JSON list [batch size, prompt tokens, output tokens, vocabulary size, seed]. Each response is a JSON line
with the figures of `groundup.inference.speed.SpeedTest.run`. The test has the same steps: prefill of all prompts, then
decode of all requests.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from importlib import import_module
from typing import Any

_CACHED = {"cache_prompt": True, "ignore_eos": True, "temperature": 0}
_SPARE_TOKENS = 16  # of a context


def serve_tests() -> None:
    """Respond to tests until the input ends."""
    del sys.path[0]  # the directory of this file, whose modules could hide modules of the same name
    path, sizes = sys.argv[1], list(map(int, sys.argv[2:]))
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # llama.cpp also prints to stdout
        server = _open(path, *sizes)
        for line in sys.stdin:
            batch_size, prompt_tokens, output_tokens, vocabulary, seed = json.loads(line)
            numbers = random.Random(seed)
            prompts = [[numbers.randrange(vocabulary) for _ in range(prompt_tokens)] for _ in range(batch_size)]
            figures = _measure(server, prompts, output_tokens)
            answers.write(json.dumps(figures) + "\n")
            answers.flush()


def _open(path: str, threads: int, flash_attention: int, batch_size: int, tokens: int) -> Any:
    xllamacpp = import_module("xllamacpp")

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel = batch_size
    params.n_ctx = batch_size * (tokens + _SPARE_TOKENS)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0
    params.verbosity = -1
    kinds = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = (
        kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    server = xllamacpp.Server(params)
    server.handle_completions({"prompt": "a", "n_predict": 8, "id_slot": 0, **_CACHED})  # warm-up
    return server


def _measure(server: Any, prompts: list[list[int]], output_tokens: int) -> dict[str, float]:
    batch_size, prompt_tokens = len(prompts), len(prompts[0])

    def complete_all(tokens: int) -> tuple[float, list[dict[str, Any]]]:
        """Complete all prompts, each in its own slot, whose cache keeps the prompt for the next call."""
        timings: list[dict[str, Any]] = [{}] * batch_size

        def complete(slot: int) -> None:
            body = {"prompt": prompts[slot], "n_predict": tokens, "id_slot": slot, **_CACHED}
            done = server.handle_completions(body)
            timings[slot] = (done[-1] if isinstance(done, list) else done).get("timings", {})

        workers = [threading.Thread(target=complete, args=(slot,)) for slot in range(batch_size)]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if not all(timings):
            raise SystemExit("llama.cpp could not complete a prompt")
        return time.perf_counter() - started, timings

    prefill, timings = complete_all(1)
    if not output_tokens:
        if batch_size == 1:  # without the overhead of the server
            prefill = timings[0]["prompt_ms"] / 1000
        return {"prefill": batch_size * prompt_tokens / prefill, "first_token": prefill}
    _, timings = complete_all(output_tokens + 1)
    decode = max(each["predicted_ms"] for each in timings) / 1000  # after the first token, which ends the prefill
    outputs = batch_size * output_tokens
    return {"decode": outputs / decode, "with_prefill": outputs / (prefill + decode)}


if __name__ == "__main__":
    serve_tests()
