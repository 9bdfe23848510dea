"""File locks between processes. The operating system releases them when a process ends, even after kill -9."""

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
_POLL_SECONDS = 0.2


def acquire(path: Path) -> TextIO | None:
    """Lock a file for this process, and create it if necessary. Closing the file releases the lock.

    The content of the file stays when the process is killed. Child processes do not inherit the lock.

    Args:
        path: The file.

    Returns:
        The file, open for reading and appending, or None if another process has the lock.
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
    """Lock a file inside a `with` block, see `acquire`.

    Args:
        path: The file.
        wait: Wait until another process releases the lock.
    """
    while (file := acquire(path)) is None and wait:
        time.sleep(_POLL_SECONDS)
    try:
        yield file
    finally:
        if file is not None:
            file.close()


def lock_directory(directory: Path, *, fix: str) -> TextIO:
    """Lock a directory for this process, and create it if necessary.

    Args:
        directory: The directory.
        fix: Alternative to waiting for another process, for the error.

    Returns:
        The lock file. Closing it releases the lock.

    Raises:
        ResourceError: Another process uses the directory. The error contains its process ID.
    """
    file = acquire(directory / LOCK)
    if file is None:
        holder = (directory / LOCK).read_text(encoding="ascii").strip() or "unknown"
        raise ResourceError(
            f"{directory}: in use by process {holder}",
            fix=f"Wait for it, end it, or {fix}.",
        )
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def lock_owner(directory: Path) -> int | None:
    """Return the ID of the process that locks a directory, or None.

    After a process was killed, its ID may belong to another process.

    Args:
        directory: The directory.
    """
    try:
        number = int((directory / LOCK).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return number if number > 0 and _alive(number, directory / LOCK) else None


@contextmanager
def locked_run(directory: Path) -> Iterator[None]:
    """Lock the directory of a run inside a `with` block.

    Args:
        directory: Directory of the run.

    Raises:
        ResourceError: Another process uses the directory.
    """
    with lock_directory(directory, fix="choose another name: --set name=another"):
        yield


if sys.platform == "win32":  # a form that type checkers understand
    import msvcrt

    def _lock(descriptor: int) -> None:
        # Windows locks are mandatory, so lock a byte far after the process ID that other processes read.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _alive(number: int, path: Path) -> bool:
        # On Windows, even signal 0 ends the process, so try the lock instead.
        file = acquire(path)
        if file is not None:
            file.close()
        return file is None

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # lockf instead of flock, because forked workers keep a flock after the parent was killed.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _alive(number: int, path: Path) -> bool:
        # Trying the lock would take it for a moment, and another process could fail to get it.
        try:
            os.kill(number, 0)
        except PermissionError:
            return True
        except (OSError, OverflowError):
            return False
        return True
