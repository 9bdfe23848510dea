"""Heap functions of the GNU C library (glibc). With other C libraries, these functions do nothing."""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache


@cache
def glibc() -> ctypes.CDLL | None:
    """Return the loaded glibc with declared heap functions, or None if the process uses another C library."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    return libc


def release_free_memory() -> None:
    """Return unused heap memory of this process to the operating system."""
    if libc := glibc():
        libc.malloc_trim(0)
