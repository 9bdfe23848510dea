"""Locks between processes. They are the operating system's and end with the process, also one ended by kill -9."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from groundup.errors import ResourceError

_LOCK = ".lock"


@contextmanager
def locked(path: Path) -> Iterator[TextIO | None]:
    """Hold a file (made if absent) for this process: open to read and append, or None where another process has it.

    What is written into it stays when the process is killed. Child processes do not inherit the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        try:
            _lock(file.fileno())
        except OSError:
            yield None
            return
        file.seek(0)
        yield file


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a directory (made if absent) for this process.

    Raises:
        ResourceError: another process works there; its number is in the message.
    """
    with locked(directory / _LOCK) as file:
        if file is None:
            holder = (directory / _LOCK).read_text(encoding="ascii").strip() or "unknown"
            raise ResourceError(
                f"{directory}: in use by process {holder}",
                rule="one run at a time works in a directory",
                fix="Wait for it, end it, or choose another name: --set name=another.",
            )
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


if sys.platform == "win32":  # the form that type checkers know
    import msvcrt

    def _lock(descriptor: int) -> None:
        # Far behind the process number, which others must be able to read: Windows locks are mandatory.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # lockf, not flock: a flock would live on in forked workers that outlast a killed parent.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
