"""Facts about the machine and the installed software, for records and bug reports."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = ("groundup", "torch", "tokenizers", "tiktoken", "numpy", "pyarrow", "safetensors")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def machine_facts() -> dict[str, Any]:
    """Return the operating system and the number of CPU cores."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "platform": sys.platform,
    }


def cpu_name() -> str:
    """Return the name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def source_commit() -> str | None:
    """Return the Git commit of the source code, with "-dirty" after changes, or None if it is not a Git checkout."""
    # An installed package may be in the directory of another Git repository, which does not track this file.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


MAX_OTHER_CORES = 0.2  # with more load by other processes, measured speeds are not valid


class OtherLoad:
    """Measures how much CPU time other processes use, from the creation of the object on.

    On systems without /proc/stat, the load is unknown.
    """

    def __init__(self) -> None:
        self._start = self._times()

    @property
    def cores(self) -> float | None:
        """Average number of CPU cores that other processes used, or None if it is unknown."""
        now = self._times()
        if self._start is None or now is None:
            return None
        seconds, busy, own = (after - before for after, before in zip(now, self._start, strict=True))
        return max(0.0, busy - own) / max(seconds, 1e-3)

    @property
    def busy(self) -> bool:
        """Whether measured speeds are not valid, because other processes used the CPU."""
        cores = self.cores
        return cores is not None and cores > MAX_OTHER_CORES

    @staticmethod
    def _times() -> tuple[float, float, float] | None:
        """Return the time, the CPU time of the whole machine, and the CPU time of this process and its children."""
        try:
            line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
        except OSError:
            return None
        user, nice, system, _, _, interrupts, soft_interrupts, stolen, *_ = map(int, line.split()[1:])
        busy = (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, sum(os.times()[:4])
