"""Settings of glibc's allocator for training, which frees and allocates large buffers in each step."""

from __future__ import annotations

import ctypes
import os
from functools import cache

from groundup.core.glibc import glibc, release_free_memory

_BLOCK = 1 << 30
_HUGE_PAGE = 2 << 20


@cache
def keep_large_buffers() -> None:
    """Configure glibc to keep freed buffers, in huge pages. Has an effect once per process.

    By default, glibc returns buffers above 32 MiB to the system, and each step has page faults for them, which costs a
    quarter of the speed. Huge pages of 2 MiB gain another 5 %, because of fewer TLB misses (`benchmarks/ablations.md`).
    """
    libc = glibc()
    if libc is None:
        return
    m_trim_threshold, m_mmap_threshold, never = -1, -3, -1
    libc.mallopt(m_mmap_threshold, _BLOCK)
    libc.mallopt(m_trim_threshold, never)
    _request_huge_pages(libc)


def release_unused_heap() -> None:
    """Return unused heap memory to the system, so that the process's memory use can be measured."""
    release_free_memory()
    libc = glibc()
    if libc is not None and keep_large_buffers.cache_info().currsize:
        _request_huge_pages(libc)


def _request_huge_pages(libc: ctypes.CDLL) -> None:
    """Grow the heap by a quarter of the memory, request huge pages for it, and free it.

    The new memory is never written, so it does not use physical memory.
    """
    madv_hugepage = 14
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    blocks = [libc.malloc(_BLOCK - 4096) for _ in range(size // _BLOCK)]
    for block in filter(None, blocks):
        first = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        libc.madvise(first, _BLOCK - 4096 - _HUGE_PAGE, madv_hugepage)
    for block in blocks:
        libc.free(block)
