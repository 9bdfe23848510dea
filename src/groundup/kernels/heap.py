"""Settings of glibc's memory allocator for training. Each training step allocates and frees large buffers."""

from __future__ import annotations

import ctypes
import os
from functools import cache

from groundup.core.glibc import glibc, release_free_memory

_BLOCK = 1 << 30
_HUGE_PAGE = 2 << 20


@cache
def keep_large_buffers() -> None:
    """Configure glibc to keep freed buffers and to use huge pages. Only the first call in a process has an effect.

    By default, glibc returns freed buffers above 32 MiB to the system. Then each step causes page faults when it
    allocates the buffers again, which reduces the training speed by a quarter. Huge pages of 2 MiB increase the speed
    by another 5 %, because they cause fewer TLB misses (`benchmarks/ablations.md`).
    """
    libc = glibc()
    if libc is None:
        return
    m_trim_threshold, m_mmap_threshold, never = -1, -3, -1
    libc.mallopt(m_mmap_threshold, _BLOCK)
    libc.mallopt(m_trim_threshold, never)
    _request_huge_pages(libc)


def release_unused_heap() -> None:
    """Return unused heap memory to the system, so that the resident set size shows the memory that is in use."""
    release_free_memory()
    libc = glibc()
    if libc is not None and keep_large_buffers.cache_info().currsize:
        _request_huge_pages(libc)


def _request_huge_pages(libc: ctypes.CDLL) -> None:
    """Grow the heap by a quarter of the machine's memory, request huge pages for the new blocks, and free the blocks.

    The function does not write to the new blocks, so they do not use physical memory.
    """
    madv_hugepage = 14
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    blocks = [libc.malloc(_BLOCK - 4096) for _ in range(size // _BLOCK)]
    for block in filter(None, blocks):
        first = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        libc.madvise(first, _BLOCK - 4096 - _HUGE_PAGE, madv_hugepage)
    for block in blocks:
        libc.free(block)
