"""How much memory there is, and how much a piece of work takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from groundup.kernels.heap import forget_free_buffers

_CGROUP = Path("/sys/fs/cgroup")  # version 2; in a container its own limits are at the root
_PROCESS = Path("/proc/self")


def memory_bytes(device: str) -> int | None:
    """Memory that a model can be trained in: the GPU's free memory, else the machine's; None: it does not say."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has none of these names
        return None
    return min(machine, _cgroup_limit() or machine)


def free_bytes(device: str) -> int | None:
    """What this process can still take; None: nobody knows."""
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
    """The most memory that was in use since `reset`, in bytes; -1 where the system does not say."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._known = self._cuda or (device == "cpu" and sys.platform.startswith("linux"))

    def reset(self) -> None:
        """Forget what was before, and let go of what is kept for later."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        elif self._known:
            forget_free_buffers()
            try:
                (_PROCESS / "clear_refs").write_text("5")
            except OSError:  # some sandboxes forbid it
                self._known = False

    @property
    def bytes(self) -> int:
        """The peak so far."""
        if not self._known:
            return -1
        return int(torch.cuda.max_memory_allocated()) if self._cuda else _of_process("VmHWM")

    @property
    def now(self) -> int:
        """What is in use at this moment."""
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
        if text.isdigit() and int(text) < 1 << 60:  # version 1 writes a huge number where there is no limit
            return int(text)
    return None


def _cgroup_used() -> int:
    """Without the files that are only cached."""
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
