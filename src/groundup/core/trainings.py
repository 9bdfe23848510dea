"""Training processes of this user on this machine, so that inference leaves CPU cores to them.

Each training process locks a file in the cache directory. The operating system releases the lock when the process ends,
even after kill -9.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from groundup.core.errors import GroundupError
from groundup.core.files import cache_dir
from groundup.core.locks import acquire


@contextmanager
def announced_training(device: str) -> Iterator[None]:
    """Announce within the context that this process trains a model on a device. Only "cpu" is announced."""
    if device != "cpu":
        yield
        return
    file = None
    with suppress(OSError, GroundupError):  # The cache directory is not writable, or the user has none.
        path = _directory() / str(os.getpid())
        file = acquire(path)
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                path.unlink()
            file.close()


def another_process_trains() -> bool:
    """Return whether another process of this user trains a model on the CPU of this machine."""
    with suppress(OSError, GroundupError):
        return any(_is_locked(path) for path in _directory().iterdir() if path.name != str(os.getpid()))
    return False


def _directory() -> Path:
    return cache_dir() / "trainings" / platform.node()  # Machines may share the cache directory.


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file. A file without a lock is deleted: its process was killed."""
    file = acquire(path)
    if file is None:
        return True
    file.close()
    path.unlink(missing_ok=True)
    return False
