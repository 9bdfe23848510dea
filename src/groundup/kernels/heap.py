"""How glibc keeps the memory that training frees and takes again, a hundred times a step."""

from __future__ import annotations

import ctypes
import os
from functools import cache

from groundup.core.glibc import glibc, release_free_memory

_BLOCK = 1 << 30
_LARGE_PAGE = 2 << 20


@cache
def keep_large_buffers() -> None:
    """Tell glibc to keep freed buffers, and the system to give it large pages for them. Once in a process.

    By default glibc returns buffers above 32 MiB to the system and faults them in again each step: a quarter of the
    speed. Pages of 2 MiB, of which fewer have to be looked up, give another 5 % (`benchmarks/ablations.md`).
    """
    libc = glibc()
    if libc is None:
        return
    m_trim_threshold, m_mmap_threshold, never = -1, -3, -1
    libc.mallopt(m_mmap_threshold, _BLOCK)
    libc.mallopt(m_trim_threshold, never)
    _ask_for_large_pages(libc)


def forget_free_buffers() -> None:
    """Give what is kept but not used back to the system, so that what a process holds says what it needs."""
    release_free_memory()
    libc = glibc()
    if libc is not None and keep_large_buffers.cache_info().currsize:
        _ask_for_large_pages(libc)


def _ask_for_large_pages(libc: ctypes.CDLL) -> None:
    """Let the heap grow by a quarter of the memory, mark that, and free it: untouched, it takes no memory yet."""
    madv_hugepage = 14
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    blocks = [libc.malloc(_BLOCK - 4096) for _ in range(size // _BLOCK)]
    for block in filter(None, blocks):
        first = -(-block // _LARGE_PAGE) * _LARGE_PAGE
        libc.madvise(first, _BLOCK - 4096 - _LARGE_PAGE, madv_hugepage)
    for block in blocks:
        libc.free(block)
