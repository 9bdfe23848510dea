"""Measurement of available memory and of peak memory use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

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
