"""Measurement of available memory and of peak memory use."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from bisect import bisect
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from groundup.kernels.heap import release_unused_heap

_CGROUP = Path("/sys/fs/cgroup")  # In a container, this directory has the limits of the container.
_PROCESS = Path("/proc/self")


def memory_bytes(device: str) -> int | None:
    """Return the memory that is available for training in bytes, or None if the amount is unknown.

    For a GPU, the result is the free GPU memory. For a CPU, the result is the memory of the machine or of the
    container.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows does not have these values.
        return None
    return min(machine, _cgroup_limit() or machine)


def free_bytes(device: str) -> int | None:
    """Return the memory that this process can still allocate in bytes, or None if the amount is unknown."""
    if device == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0]) + cached
    if not sys.platform.startswith("linux"):
        return None
    known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024 * int(known["MemAvailable"].split()[0])
    limit = _cgroup_limit()
    return free if limit is None else min(free, limit - _cgroup_used())


class Peak:
    """Measures the peak memory use of this process since `reset`."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._known = self._cuda or (device == "cpu" and sys.platform.startswith("linux"))

    def reset(self) -> None:
        """Start a new measurement of the peak. On a CPU, return unused heap memory to the system first."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        elif self._known:
            release_unused_heap()
            try:
                (_PROCESS / "clear_refs").write_text("5")
            except OSError:  # Some sandboxes forbid this write.
                self._known = False

    @property
    def bytes(self) -> int:
        """Peak memory use in bytes, or -1 if it is unknown."""
        if not self._known:
            return -1
        return int(torch.cuda.max_memory_allocated()) if self._cuda else _of_process("VmHWM")

    @property
    def now(self) -> int:
        """Current memory use in bytes, or -1 if it is unknown."""
        return int(torch.cuda.memory_allocated()) if self._cuda else _of_process("VmRSS")


class CleanFilePages:
    """Releases memory-mapped pages that can be read from their files again. Only on Linux; elsewhere it does nothing.

    The kernel knows which mappings of files were never written to, at the time when this object is created.
    """

    _RANGE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ...p \S+ \S+ (\d+)", re.MULTILINE)
    _WRITTEN = re.compile(rb"^(?:Anonymous|Swap): +[1-9]", re.MULTILINE)

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        with suppress(OSError):
            known = (_PROCESS / "smaps").read_bytes()
            found = [*self._RANGE.finditer(known)]
            ends = [each.start() for each in found[1:]] + [len(known)]
            for each, end in zip(found, ends, strict=True):
                if int(each[3]) and not self._WRITTEN.search(known, each.start(), end):
                    self._ranges.append((int(each[1], 16), int(each[2], 16)))

    def contain(self, tensor: Tensor) -> bool:
        """Return whether a tensor is in a mapping of a file that was never written to."""
        return self._pages(tensor) is not None

    def release(self, tensor: Tensor) -> None:
        """Release the pages of a tensor, if it is in a mapping of a file that was never written to."""
        if (pages := self._pages(tensor)) is not None:
            begin, end = pages
            ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)

    def _pages(self, tensor: Tensor) -> tuple[int, int] | None:
        """Return the range of memory that contains a tensor and begins with a page."""
        if tensor.device.type != "cpu" or not tensor.numel():
            return None
        begin = tensor.data_ptr()
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        end = begin + (last + 1) * tensor.itemsize
        index = bisect(self._ranges, (begin, sys.maxsize)) - 1
        if index < 0 or end > self._ranges[index][1]:
            return None
        return begin // mmap.PAGESIZE * mmap.PAGESIZE, end


def _of_process(key: str) -> int:
    lines = (_PROCESS / "status").read_text().splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), -1)


def _cgroup_limit() -> int | None:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (_CGROUP / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:  # In cgroup v1, a very large number means "no limit".
            return int(text)
    return None


def _cgroup_used() -> int:
    """Return the memory use of the cgroup in bytes, excluding the inactive page cache."""
    for used, stat, cached in (
        ("memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            known = dict(line.split(" ", 1) for line in (_CGROUP / stat).read_text().splitlines())
            return int((_CGROUP / used).read_text()) - int(known.get(cached, 0))
        except (OSError, ValueError):
            continue
    return 0
