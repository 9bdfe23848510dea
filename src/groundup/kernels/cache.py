"""The cache of compiled kernels: kept for the next start, and not trusted after a process was killed while it wrote."""

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


def _mark() -> Path:
    return cache_dir() / "kernels.lock"


def use_kernel_cache() -> None:
    """Let torch keep its kernels with the user's other caches, so that the second start is a fast one.

    torch's compiler writes its libraries in place: a process killed at that moment leaves half of one, which every
    later start would fail on. So who compiles holds a mark, and a mark that nobody holds empties the cache.
    """
    if _VARIABLE in os.environ:  # set by the user, or here before
        return
    directory = _directory()
    try:
        with locked(_mark()) as mark:
            if mark is None:  # another process compiles now: its kernels are not whole yet
                directory = Path(tempfile.mkdtemp(prefix="groundup-kernels-"))
            elif mark.read():
                shutil.rmtree(directory, ignore_errors=True)
                mark.truncate(0)
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:  # a cache that cannot be written
        directory = Path(tempfile.mkdtemp(prefix="groundup-kernels-"))
    os.environ[_VARIABLE] = str(directory)


@contextmanager
def compiling() -> Iterator[None]:
    """Mark the cache as being written."""
    with ExitStack() as held:
        mark = held.enter_context(locked(_mark())) if os.environ.get(_VARIABLE) == str(_directory()) else None
        if mark is not None:
            mark.truncate(0)
            mark.write("writing\n")
            mark.flush()
        yield
        if mark is not None:
            mark.truncate(0)


@contextmanager
def not_counted() -> Iterator[None]:
    """Passes in this block compile nothing."""
    token = _eager.set(True)
    try:
        yield
    finally:
        _eager.reset(token)


def mark_first_pass(model: nn.Module) -> None:
    """Mark the cache from the model's first forward pass until its second: in between, forward and backward compile."""
    held = ExitStack()
    passes = 0

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal passes
        if _eager.get():
            return
        passes += 1
        if passes == 1:
            held.enter_context(compiling())
        else:
            held.close()
            hook.remove()

    hook = model.register_forward_pre_hook(before)
