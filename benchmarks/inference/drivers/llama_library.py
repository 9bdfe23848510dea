#!/usr/bin/env python3
"""Measure llama.cpp through its shared libraries, which select the code for this CPU when they are loaded.

The wheel of xllamacpp uses AVX2 only. The npm packages `@node-llama-cpp/linux-x64` and similar ones have a library for
each CPU generation. Set LLAMA_LIBRARIES to the folder of `libllama*.so`, and PEER to this file: it takes the place of a
Python interpreter and responds to tests like `groundup/evaluation/speed/llama_cpp_driver.py`. All prompts are processed
one after the other, and tokens are selected by numpy, so no server takes time.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

_SPARE_TOKENS = 16  # of a context
_DEFAULT_THREADS = 4  # in llama_context_default_params


class _Params(ctypes.Structure):
    """Parameters of a model or a context: more bytes than any release has, because they are passed by value."""

    _fields_ = (("bytes", ctypes.c_uint8 * 512),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_int32),
        ("tokens", ctypes.POINTER(ctypes.c_int32)),
        ("embeddings", ctypes.c_void_p),
        ("positions", ctypes.POINTER(ctypes.c_int32)),
        ("sequence_counts", ctypes.POINTER(ctypes.c_int32)),
        ("sequences", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("scored", ctypes.POINTER(ctypes.c_int8)),
    )


class LlamaLibrary:
    """A model in llama.cpp with one context.

    Args:
        folder: Folder of the shared libraries.
        path: GGUF file.
        threads: Number of CPU threads.
        flash_attention: 0 or 1.
        batch_size: Maximum number of sequences.
        tokens: Maximum number of tokens of a sequence.
    """

    def __init__(
        self, folder: Path, path: str, threads: int, flash_attention: int, batch_size: int, tokens: int
    ) -> None:
        ctypes.CDLL(str(next(folder.glob("libggml-base*.so"))), mode=ctypes.RTLD_GLOBAL)
        ggml_path = next(each for each in folder.glob("libggml*.so") if each.name.startswith("libggml."))
        ggml = ctypes.CDLL(str(ggml_path), mode=ctypes.RTLD_GLOBAL)
        ggml.ggml_backend_load_all_from_path(str(folder).encode())
        self._llama = llama = ctypes.CDLL(str(next(folder.glob("libllama.*so*"))))
        self._declare()
        model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        if not model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocab_size: int = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        params = _context_params(
            llama.llama_context_default_params(), threads, flash_attention, batch_size, tokens + _SPARE_TOKENS
        )
        self._context = llama.llama_init_from_model(model, params)
        self._batch = llama.llama_batch_init(batch_size * (tokens + _SPARE_TOKENS), 0, 1)

    def measure(self, prompts: list[list[int]], output_tokens: int) -> dict[str, float]:
        """Process all prompts, then decode all sequences together; return the figures of the test."""
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), ctypes.c_bool(True))
        started = time.perf_counter()
        latest = []
        for sequence, prompt in enumerate(prompts):
            last = len(prompt) - 1
            self._decode([(token, at, sequence, at == last) for at, token in enumerate(prompt)])
            latest.append(self._best_token(last))
        prefill = time.perf_counter() - started
        if not output_tokens:
            return {"prefill": sum(map(len, prompts)) / prefill, "first_token": prefill}
        started = time.perf_counter()
        for step in range(output_tokens):
            self._decode([(token, len(prompts[i]) + step, i, True) for i, token in enumerate(latest)])
            latest = [self._best_token(row) for row in range(len(latest))]
        decode = time.perf_counter() - started
        outputs = len(prompts) * output_tokens
        return {"decode": outputs / decode, "with_prefill": outputs / (prefill + decode)}

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.count = len(rows)
        for row, (token, position, sequence, scored) in enumerate(rows):
            batch.tokens[row], batch.positions[row], batch.scored[row] = token, position, scored
            batch.sequence_counts[row], batch.sequences[row][0] = 1, sequence
        if self._llama.llama_decode(self._context, batch):
            raise SystemExit("llama.cpp could not process a batch")

    def _best_token(self, row: int) -> int:
        logits = self._llama.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self.vocab_size,)).argmax())

    def _declare(self) -> None:
        pointer, integer, llama = ctypes.c_void_p, ctypes.c_int32, self._llama
        signatures: dict[str, tuple[Any, list[Any]]] = {
            "llama_model_default_params": (_Params, []),
            "llama_context_default_params": (_Params, []),
            "llama_model_load_from_file": (pointer, [ctypes.c_char_p, _Params]),
            "llama_init_from_model": (pointer, [pointer, _Params]),
            "llama_batch_init": (_Batch, [integer, integer, integer]),
            "llama_decode": (integer, [pointer, _Batch]),
            "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), [pointer, integer]),
            "llama_get_memory": (pointer, [pointer]),
            "llama_memory_clear": (None, [pointer, ctypes.c_bool]),
            "llama_model_get_vocab": (pointer, [pointer]),
            "llama_vocab_n_tokens": (integer, [pointer]),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(llama, name)
            function.restype, function.argtypes = result, arguments


def _context_params(params: _Params, threads: int, flash_attention: int, batch_size: int, tokens: int) -> _Params:
    """Set the parameters of a context. The places of some of them differ between releases and follow from defaults."""
    values = list(struct.unpack_from("<32i", params.bytes))
    threads_at = next(i for i in range(4, 16) if values[i : i + 2] == [_DEFAULT_THREADS] * 2)
    unset = next(i for i in range(threads_at, 24) if values[i : i + 4] == [-1] * 4)  # the last one is flash attention
    new = {0: batch_size * tokens, 3: batch_size, threads_at: threads, threads_at + 1: threads}
    for place, value in (new | {unset + 3: flash_attention}).items():
        struct.pack_into("<i", params.bytes, 4 * place, value)
    return params


def serve_tests() -> None:
    """Respond to tests until the input ends. The first argument is the driver that this file replaces."""
    path, sizes = sys.argv[2], list(map(int, sys.argv[3:]))
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # llama.cpp also prints to stdout
        llama = LlamaLibrary(Path(os.environ["LLAMA_LIBRARIES"]), path, *sizes)
        llama.measure([[1] * 8], 8)  # warm-up
        for line in sys.stdin:
            batch_size, prompt_tokens, output_tokens, vocabulary, seed = json.loads(line)
            numbers = random.Random(seed)
            prompts = [[numbers.randrange(vocabulary) for _ in range(prompt_tokens)] for _ in range(batch_size)]
            answers.write(json.dumps(llama.measure(prompts, output_tokens)) + "\n")
            answers.flush()


if __name__ == "__main__":
    serve_tests()
