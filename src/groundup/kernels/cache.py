"""The persistent cache of `torch.compile`. It is emptied if a process was killed while it compiled."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from torch import nn

from groundup.core.files import cache_dir
from groundup.core.locks import locked

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_eager: ContextVar[bool] = ContextVar("eager", default=False)


def _directory() -> Path:
    return cache_dir() / "kernels"


def _lock_file() -> Path:
    return cache_dir() / "kernels.lock"


def use_kernel_cache() -> None:
    """Set torch's compile cache to a persistent directory, which makes later starts faster.

    torch writes compiled libraries in place. A process that is killed while it writes leaves an incomplete library, and
    every later start would fail. So a process that compiles locks a file and writes to it. A file with content but
    without a lock means that the process was killed, and the cache is emptied.
    """
    if _VARIABLE in os.environ:  # set by the user, or by an earlier call
        return
    directory = _directory()
    try:
        with locked(_lock_file()) as lock:
            if lock is None:  # another process is compiling, so libraries may be incomplete
                directory = Path(tempfile.mkdtemp(prefix="groundup-kernels-"))
            elif lock.read():
                shutil.rmtree(directory, ignore_errors=True)
                lock.truncate(0)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:  # the cache is not writable
        directory = Path(tempfile.mkdtemp(prefix="groundup-kernels-"))
    os.environ[_VARIABLE] = str(directory)


@contextmanager
def compiling() -> Iterator[None]:
    """Hold the lock of the cache, and mark it as being written, within the context."""
    with ExitStack() as stack:
        shared = os.environ.get(_VARIABLE) == str(_directory())
        lock = stack.enter_context(locked(_lock_file())) if shared else None
        if lock is not None:
            lock.truncate(0)
            lock.write("writing\n")
            lock.flush()
        yield
        if lock is not None:
            lock.truncate(0)


@contextmanager
def without_counting() -> Iterator[None]:
    """Exclude forward passes within the context from `mark_first_pass`, because they compile nothing."""
    token = _eager.set(True)
    try:
        yield
    finally:
        _eager.reset(token)


def mark_first_pass(model: nn.Module) -> None:
    """Hold the lock of the cache from the model's first forward pass until its second.

    The model's forward and backward are compiled between these.
    """
    stack = ExitStack()
    passes = 0

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal passes
        if _eager.get():
            return
        passes += 1
        if passes == 1:
            stack.enter_context(compiling())
        else:
            stack.close()
            hook.remove()

    hook = model.register_forward_pre_hook(before)
