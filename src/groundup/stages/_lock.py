"""One process at a time in a directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.errors import ResourceError

_LOCK = ".lock"


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a directory (made if absent) for this process.

    The lock is the operating system's: it ends with the process, also one ended by kill -9, so nothing goes
    stale. Child processes do not inherit it.

    Raises:
        ResourceError: another process works there; its number is in the message.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / _LOCK).open("a+", encoding="ascii") as file:
        try:
            _lock(file.fileno())
        except OSError:
            file.seek(0)
            raise ResourceError(
                f"{directory}: in use by process {file.read().strip() or 'unknown'}",
                rule="one run at a time works in a directory",
                fix="Wait for it, end it, or choose another name: --set name=another.",
            ) from None
        file.seek(0)
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
