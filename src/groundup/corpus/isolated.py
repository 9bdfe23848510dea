"""Run native parsers in a child process, so that a crash or an endless loop affects only one file.

The input files can be malicious, and they can exploit bugs in parsers written in C or C++. The CPU time and the memory
of the child process are limited. The child process is reused for the next file, and replaced after a crash.
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
CPU_SECONDS = 15  # maximum CPU time per value; a PDF page takes about 0.01 s
WALL_SECONDS = 900  # maximum wall-clock time per input, in case the child hangs without using CPU time
MEMORY_BYTES = 3 << 29  # maximum address space; 28 real PDFs needed at most a third of it

_children: dict[tuple[int, str], subprocess.Popen[bytes]] = {}


class CrashError(Exception):
    """The child process ended before it returned all values. The message names the cause, e.g. "killed by SIGSEGV"."""


def run_isolated(function: str, data: bytes) -> Iterator[Any]:
    """Call a generator function in a child process and yield its values.

    Args:
        function: Name of the function in the form "package.module:name". The function must yield values that can be
            converted to JSON.
        data: Argument of the function.

    Yields:
        The values that the function yields.

    Raises:
        CrashError: The child crashed, needed more than `CPU_SECONDS` for one value, or exceeded `MEMORY_BYTES`.
    """
    key = (os.getpid(), function)
    child = _children.pop(key, None) or _start(function)
    assert child.stdin is not None and child.stdout is not None
    timer = threading.Timer(WALL_SECONDS, child.kill)
    timer.start()
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
            raise CrashError(_exit_reason(child.wait()))
    finally:
        timer.cancel()
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


def _exit_reason(status: int) -> str:
    with suppress(ValueError):
        name = signal.Signals(-status).name
        return f"more than {CPU_SECONDS} seconds of CPU time for one part" if name == "SIGPROF" else f"killed by {name}"
    return f"exit status {status}"


def _serve(function: str) -> None:
    """Process requests in the child process until the parent process closes the pipe or exits."""
    _limit_memory()
    module, name = function.split(":")
    call = getattr(importlib.import_module(module), name)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Output that native code writes to stdout must not be mixed with the answers.
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
    """Limit the CPU time of this process.

    Unlike a wall-clock limit, a CPU time limit does not depend on the load from other processes.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # Windows does not support a limit of the address space.
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
