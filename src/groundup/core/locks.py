"""Locks between processes. They are the operating system's and end with the process, also one ended by kill -9."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from groundup.core.errors import ResourceError

LOCK = ".lock"
_PATIENCE = 0.2  # seconds between two looks at a lock that is waited for


def acquire(path: Path) -> TextIO | None:
    """Lock a file (made if absent) for this process until it is closed: open to read and append; None: another has it.

    What is written into it stays when the process is killed. Child processes do not inherit the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="ascii")
    try:
        _lock(file.fileno())
    except OSError:
        file.close()
        return None
    file.seek(0)
    return file


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[TextIO | None]:
    """`acquire` for the time of a block; with `wait`, not before the other process has let go."""
    while (file := acquire(path)) is None and wait:
        time.sleep(_PATIENCE)
    try:
        yield file
    finally:
        if file is not None:
            file.close()


def lock_directory(directory: Path, *, fix: str) -> TextIO:
    """Lock a directory (made if absent) for this process until the file that comes back is closed.

    Args:
        fix: what to do where another process has it, besides waiting for it.

    Raises:
        ResourceError: another process works there; its number is in the message.
    """
    file = acquire(directory / LOCK)
    if file is None:
        holder = (directory / LOCK).read_text(encoding="ascii").strip() or "unknown"
        raise ResourceError(
            f"{directory}: in use by process {holder}",
            rule="one process at a time works in a directory",
            fix=f"Wait for it, end it, or {fix}.",
        )
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def lock_owner(directory: Path) -> int | None:
    """The process that holds a directory; None: nobody does. A killed one's number may by chance be another's now."""
    try:
        number = int((directory / LOCK).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return number if number > 0 and _alive(number, directory / LOCK) else None


@contextmanager
def locked_run(directory: Path) -> Iterator[None]:
    """Hold a run's directory for the time of a block; raises as `lock_directory` does."""
    with lock_directory(directory, fix="choose another name: --set name=another"):
        yield


if sys.platform == "win32":  # the form that type checkers know
    import msvcrt

    def _lock(descriptor: int) -> None:
        # Far behind the process number, which others must be able to read: Windows locks are mandatory.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _alive(number: int, path: Path) -> bool:
        # Here a signal, even 0, would end the process: the lock itself is tried.
        file = acquire(path)
        if file is not None:
            file.close()
        return file is None

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # lockf, not flock: a flock would live on in forked workers that outlast a killed parent.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _alive(number: int, path: Path) -> bool:
        # Not the lock itself: to try it would take it, and refuse somebody who wants it in that moment.
        try:
            os.kill(number, 0)
        except PermissionError:
            return True
        except (OSError, OverflowError):
            return False
        return True
