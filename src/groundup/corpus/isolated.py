"""Native code at a distance: in a process of its own, whose crash, hunger or endless loop ends one file, not the run.

A parser of a large format in C or C++ meets files that were made to break it. Here it is called in a child that is
kept for the next file, is held to a time and a memory, and is replaced when it dies.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

_LENGTH = struct.Struct("<Q")
_SERVE = "import sys; sys.path[:] = {path!r}; from groundup.corpus.isolated import _serve; _serve({function!r})"
CPU_SECONDS = 15  # for one value: a page of a PDF takes hundredths of one
WALL_SECONDS = 900  # for one input, should the child sleep
MEMORY_BYTES = 3 << 29  # address space: 28 real PDFs do with a third of it, a page made for it takes all that there is

_children: dict[tuple[int, str], subprocess.Popen[bytes]] = {}


class CrashError(Exception):
    """The child died; the message says how ("killed by SIGSEGV")."""


def run_isolated(function: str, data: bytes) -> Iterator[Any]:
    """Yield what a generator function yields (values of JSON), called with `data` in a child process.

    Args:
        function: "package.module:name".

    Raises:
        CrashError: the child crashed, or took more than `CPU_SECONDS` for one value or than `MEMORY_BYTES`.
    """
    key = (os.getpid(), function)
    child = _children.pop(key, None) or _start(function)
    assert child.stdin is not None and child.stdout is not None
    watch = threading.Timer(WALL_SECONDS, child.kill)
    watch.start()
    finished = False
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(_LENGTH.pack(len(data)))
            child.stdin.write(data)
            child.stdin.flush()
        for line in child.stdout:
            value = json.loads(line)
            if value is None:
                finished = True
                break
            yield value[0]
        if not finished:
            raise CrashError(_how_it_died(child.wait()))
    finally:
        watch.cancel()
        if finished:
            _children[key] = child
        else:
            _end(child)


def _start(function: str) -> subprocess.Popen[bytes]:
    program = _SERVE.format(path=sys.path, function=function)
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _how_it_died(status: int) -> str:
    with suppress(ValueError):
        name = signal.Signals(-status).name
        return f"more than {CPU_SECONDS} seconds for one part" if name == "SIGPROF" else f"killed by {name}"
    return f"exit status {status}"


def _serve(function: str) -> None:
    """The child's whole life: inputs come in, values go out, until the parent closes the pipe or dies."""
    _limit_memory()
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints must not get between the answers
    with suppress(BrokenPipeError):
        while head := requests.read(_LENGTH.size):
            data = requests.read(_LENGTH.unpack(head)[0])
            _limit_time(CPU_SECONDS)
            for value in call(data):
                _answer(answers, [value])
                _limit_time(CPU_SECONDS)
            _answer(answers, None)
            _limit_time(0)


def _answer(answers: IO[bytes], value: Any) -> None:
    answers.write(json.dumps(value).encode() + b"\n")
    answers.flush()


def _limit_time(seconds: float) -> None:
    """Be killed after so much time of a processor: unlike that of a clock, it does not depend on what else runs."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
