"""Trial compilation of grammars in a child process.

Grammars come from clients. A regex of 20 kB can need a gigabyte and minutes, a chain of rules can overflow the stack,
and the compiler can neither be interrupted nor limited enough. A grammar is therefore first compiled in a child
process, which is killed if it needs too much or if the client disconnects.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from groundup.core.errors import ConfigError, ResourceError
from groundup.inference.grammar import trial_child

_WALL_SECONDS = 20.0  # for a child that hangs without using CPU time
_POLL_SECONDS = 0.05  # interval of checks whether the client is still connected
_PROGRAM = "import runpy, sys; sys.path[:] = {path!r}; runpy.run_path({file!r}, run_name='__main__')"


class CancelledError(Exception):
    """The client disconnected before its grammar was compiled."""


class TrialCompiler:
    """A child process that compiles grammars for one vocabulary. It starts at the first grammar.

    Args:
        vocabulary: Tokens as Latin-1 text, the special ones, EOS, and the limits of llguidance.
    """

    def __init__(self, vocabulary: Mapping[str, Any]) -> None:
        self._vocabulary = json.dumps(vocabulary)
        self._child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def compile(self, grammar: str, cancelled: threading.Event) -> str:
        """Compile a grammar, and return the error of llguidance or an empty text.

        Args:
            grammar: Grammar in the format of llguidance.
            cancelled: Set when the result is not needed any more.

        Raises:
            ConfigError: The grammar needs too much time, memory or stack.
            ResourceError: Other grammars are compiled for too long.
            CancelledError: `cancelled` was set.
        """
        deadline = time.monotonic() + _WALL_SECONDS
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            _check(cancelled, deadline)
        try:
            return self._ask(grammar, cancelled, deadline)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            self._child = None

    def _ask(self, grammar: str, cancelled: threading.Event, deadline: float) -> str:
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        answer = ""
        try:
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(grammar) + "\n")
                child.stdin.flush()
            while not select.select([child.stdout], [], [], _POLL_SECONDS)[0]:
                _check(cancelled, deadline)
            answer = child.stdout.readline()
        finally:
            if not answer:
                self.close()
        if not answer:
            raise ConfigError(
                "the grammar is too complex",
                rule=f"to compile it takes more than {trial_child.CPU_SECONDS:g} second, "
                f"{trial_child.MEMORY_BYTES // 2**20} MB or the stack",
                fix="Use simpler patterns, smaller repeat counts and numbers, and fewer nested rules.",
            )
        error: str = json.loads(answer)
        return error

    def _start(self) -> subprocess.Popen[str]:
        program = _PROGRAM.format(path=sys.path, file=str(Path(trial_child.__file__)))
        self._child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        assert self._child.stdin is not None
        self._child.stdin.write(self._vocabulary + "\n")
        return self._child


def _check(cancelled: threading.Event, deadline: float) -> None:
    if cancelled.is_set():
        raise CancelledError
    if time.monotonic() > deadline:
        raise ResourceError("grammars of other requests take long", fix="Try again in a moment.")
