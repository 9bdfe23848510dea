"""Spin time of OpenMP threads. Short spinning keeps training fast when another process is busy."""

from __future__ import annotations

import os

# An idle OpenMP thread spins for milliseconds before it sleeps, and blocks a core that another thread needs.
# GNU's library (torch on Linux, our kernels) counts iterations; LLVM's and Intel's (macOS) count milliseconds.
DEFAULTS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
_USER_SETTINGS = ("OMP_WAIT_POLICY", *DEFAULTS)


def spin_briefly() -> None:
    """Set a short spin time for this process and its children, unless the environment sets one.

    The libraries read it when they are loaded, so this must run before torch is imported.
    """
    if not any(name in os.environ for name in _USER_SETTINGS):
        os.environ.update(DEFAULTS)
