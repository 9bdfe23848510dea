"""Compute the logits of llama.cpp for given token ids, through the C functions that the library of xllamacpp exports.

Command: `python llama_logits.py FILE.gguf THREADS`. Each line on stdin is a JSON list of token ids. Each response is a
JSON line with the number of rows and columns, followed by the logits after each token as float32 data.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import xllamacpp  # type: ignore[import-not-found]


class _Params(ctypes.Structure):
    """Parameters of a model or a context. Only their default values are used, so the fields need not be known."""

    _fields_ = [("content", ctypes.c_char * 2048)]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def load_library() -> ctypes.CDLL:
    """Return the library with the types of the functions that are used."""
    (path,) = Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    for name, result, arguments in (
        ("llama_model_default_params", _Params, []),
        ("llama_context_default_params", _Params, []),
        ("llama_model_load_from_file", pointer, [ctypes.c_char_p, _Params]),
        ("llama_init_from_model", pointer, [pointer, _Params]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", integer, [pointer]),
        ("llama_n_batch", ctypes.c_uint32, [pointer]),
        ("llama_n_ctx", ctypes.c_uint32, [pointer]),
        ("llama_set_n_threads", None, [pointer, integer, integer]),
        ("llama_get_memory", pointer, [pointer]),
        ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
        ("llama_decode", integer, [pointer, _Batch]),
        ("llama_get_logits", pointer, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def main() -> None:
    """Respond to requests until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # llama.cpp also prints to stdout
    library = load_library()
    model = library.llama_model_load_from_file(sys.argv[1].encode(), library.llama_model_default_params())
    context = library.llama_init_from_model(model, library.llama_context_default_params())
    library.llama_set_n_threads(context, int(sys.argv[2]), int(sys.argv[2]))
    columns = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    for line in sys.stdin:
        ids: list[int] = json.loads(line)
        assert len(ids) <= min(library.llama_n_batch(context), library.llama_n_ctx(context)), "context too short"
        library.llama_memory_clear(library.llama_get_memory(context), True)
        failed = library.llama_decode(context, batch_of(ids))
        assert not failed, f"llama_decode returned {failed}"
        answers.write(json.dumps([len(ids), columns]).encode() + b"\n")
        answers.write(ctypes.string_at(library.llama_get_logits(context), 4 * len(ids) * columns))
        answers.flush()


def batch_of(ids: list[int]) -> _Batch:
    """Return a batch of one sequence with the logits of all tokens."""
    count = len(ids)
    sequence = (ctypes.c_int32 * 1)(0)
    sequences: Any = (ctypes.POINTER(ctypes.c_int32) * count)(
        *[ctypes.cast(sequence, ctypes.POINTER(ctypes.c_int32))] * count
    )
    batch = _Batch(
        count,
        (ctypes.c_int32 * count)(*ids),
        None,
        (ctypes.c_int32 * count)(*range(count)),
        (ctypes.c_int32 * count)(*[1] * count),
        sequences,
        (ctypes.c_int8 * count)(*[1] * count),
    )
    batch.kept = sequence  # the batch contains only its address
    return batch


if __name__ == "__main__":
    main()
