"""The persistent cache of `torch.compile`. The cache is emptied if a process was killed during compilation."""

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

    torch writes compiled libraries in place. If a process is killed during a write, it leaves an incomplete library,
    and every later start would fail. So a process that compiles locks a lock file and writes a mark into it. If the
    lock file has a mark but is not locked, the process was killed during compilation, and the cache is emptied.
    """
    if _VARIABLE in os.environ:  # The user or an earlier call has set the variable.
        return
    directory = _directory()
    try:
        with locked(_lock_file()) as lock:
            if lock is None:  # Another process is compiling, so libraries may be incomplete.
                directory = Path(tempfile.mkdtemp(prefix="groundup-kernels-"))
            elif lock.read():
                shutil.rmtree(directory, ignore_errors=True)
                lock.truncate(0)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:  # The cache directory is not writable.
        directory = Path(tempfile.mkdtemp(prefix="groundup-kernels-"))
    os.environ[_VARIABLE] = str(directory)


@contextmanager
def compiling() -> Iterator[None]:
    """Hold the lock file of the compile cache within the context, with a mark that compilation is in progress."""
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
    """Do not count forward passes within the context in `mark_first_pass`, because they do not compile the model."""
    token = _eager.set(True)
    try:
        yield
    finally:
        _eager.reset(token)


def mark_first_pass(model: nn.Module) -> None:
    """Hold the lock of the compile cache from the model's first forward pass until its second forward pass.

    torch compiles the model's forward and backward passes in this period.
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
