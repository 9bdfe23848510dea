"""File locks between processes. The operating system releases a lock when the process ends, even after kill -9."""

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
    """Lock a file for this process without waiting. The file is created if it does not exist.

    Closing the file releases the lock. The file's content is kept if the process is killed. Child processes do not
    inherit the lock.

    Args:
        path: File to lock.

    Returns:
        The file, opened for reading and appending, or None if another process holds the lock.
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
    """Hold the lock of a file inside a `with` block (see `acquire`).

    Args:
        path: File to lock.
        wait: Whether to wait until another process releases the lock. If false and the file is locked, the block
            receives None.
    """
    while (file := acquire(path)) is None and wait:
        time.sleep(_POLL_SECONDS)
    try:
        yield file
    finally:
        if file is not None:
            file.close()


def lock_directory(directory: Path, *, fix: str) -> TextIO:
    """Lock a directory for this process. The directory is created if it does not exist.

    Args:
        directory: Directory to lock.
        fix: Instruction to the user, for the error message, that is an alternative to waiting for the other process.

    Returns:
        The lock file. Closing this file releases the lock.

    Raises:
        ResourceError: Another process holds the lock. The message contains the ID of that process.
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
    """Return the ID of the process that holds the lock of a directory, or None if it is not locked.

    If the process was killed, the operating system may have given its ID to another process.

    Args:
        directory: Directory whose lock is checked.
    """
    try:
        number = int((directory / LOCK).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return number if number > 0 and _alive(number, directory / LOCK) else None


@contextmanager
def locked_run(directory: Path) -> Iterator[None]:
    """Hold the lock of a run's directory inside a `with` block.

    Args:
        directory: Directory of the run.

    Raises:
        ResourceError: Another process holds the lock.
    """
    with lock_directory(directory, fix="choose another name: --set name=another"):
        yield


if sys.platform == "win32":  # type checkers understand this comparison
    import msvcrt

    def _lock(descriptor: int) -> None:
        # Windows locks prevent reading, so lock a byte far behind the process ID, which other processes read.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _alive(number: int, path: Path) -> bool:
        # On Windows, os.kill ends the process even with signal 0, so try to acquire the lock instead.
        file = acquire(path)
        if file is not None:
            file.close()
        return file is None

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # lockf is used instead of flock because forked workers keep a flock after the parent process was killed.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _alive(number: int, path: Path) -> bool:
        # Do not try to acquire the lock here: another process could fail to acquire it in that moment.
        try:
            os.kill(number, 0)
        except PermissionError:
            return True
        except (OSError, OverflowError):
            return False
        return True
