"""Worker process that runs llama.cpp or transformers.

Command: `python -m groundup.evaluation.verification.worker ENGINE PATH TOKENS`.

The engine runs in a process of its own, because a native library may abort its process. Requests are JSON lines on
stdin. Each response is a JSON line on stdout. For logits, this line declares a number of bytes, and the logits follow
as float32 data of this length.

Shape letters: T: sequence length, V: vocabulary size.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


class _Engine(Protocol):
    def logits(self, ids: Sequence[int]) -> Logits: ...

    def greedy(self, ids: Sequence[int], count: int) -> list[int]: ...

    def encode(self, text: str) -> list[int]: ...


class _LlamaCpp:
    """Engine that runs a GGUF file in llama.cpp.

    The KV cache is in float32, because the default float16 would add rounding errors.
    """

    def __init__(self, path: Path, tokens: int) -> None:
        import llama_cpp

        fp32 = int(llama_cpp.GGML_TYPE_F32)
        # torch uses the same number of threads.
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        self._model = llama_cpp.Llama(
            str(path),
            n_ctx=tokens,
            n_batch=tokens,
            n_gpu_layers=0,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=True,
            flash_attn=False,
            type_k=fp32,
            type_v=fp32,
            verbose=False,
        )

    def logits(self, ids: Sequence[int]) -> Logits:
        self._model.reset()
        self._model.eval(list(ids))
        return np.asarray(self._model.scores[: len(ids)], dtype=np.float32)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        self._model.reset()
        self._model.eval(list(ids))
        continuation: list[int] = []
        while len(continuation) < count:
            continuation.append(int(self._model.scores[self._model.n_tokens - 1].argmax()))
            if len(continuation) < count:
                self._model.eval(continuation[-1:])
        return continuation

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._model.tokenize(text.encode(), add_bos=False, special=False)
        return ids


class _Transformers:
    """Engine that runs a model directory in transformers, in float32, offline and with remote code disabled."""

    def __init__(self, path: Path, tokens: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        self._model = model.eval().requires_grad_(False)

    def logits(self, ids: Sequence[int]) -> Logits:
        scores: Logits = self._model(self._torch.tensor([list(ids)])).logits[0].float().numpy()
        return scores

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        continuation: list[int] = []
        given, cache = list(ids), None
        while len(continuation) < count:
            out = self._model(self._torch.tensor([given]), past_key_values=cache, use_cache=True)
            continuation.append(int(out.logits[0, -1].argmax()))
            given, cache = continuation[-1:], out.past_key_values
        return continuation

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids


ENGINES: dict[str, Callable[[Path, int], _Engine]] = {"llama.cpp": _LlamaCpp, "transformers": _Transformers}


def serve(engine: _Engine, requests: BinaryIO, answers: BinaryIO) -> None:
    """Read requests and write responses until the input ends."""
    for line in requests:
        request: dict[str, Any] = json.loads(line)
        match request.pop("do"):
            case "logits":
                scores_TV = np.ascontiguousarray(engine.logits(**request), dtype="<f4")
                _send(answers, {"shape": scores_TV.shape, "bytes": scores_TV.nbytes})
                answers.write(scores_TV.data)
            case "greedy":
                _send(answers, {"ids": engine.greedy(**request)})
            case "encode":
                _send(answers, {"ids": engine.encode(**request)})
        answers.flush()


def _send(answers: BinaryIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value).encode() + b"\n")


def serve_engine(kind: str, path: str, tokens: str) -> None:
    """Load the engine, report that it is ready, and respond to requests.

    Everything that the engine prints goes to stderr, because stdout is reserved for the responses.
    """
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        engine = ENGINES[kind](Path(path), int(tokens))
        _send(answers, {"ready": kind})
        answers.flush()
        serve(engine, sys.stdin.buffer, answers)


if __name__ == "__main__":
    serve_engine(*sys.argv[1:])
