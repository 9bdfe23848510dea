"""Spin time of OpenMP threads. A short spin time keeps training fast while another process uses the CPU."""

from __future__ import annotations

import os

# An idle OpenMP thread spins for milliseconds before it sleeps. Meanwhile, it occupies a core that another thread
# needs.
# The setting of GNU's library (torch on Linux, our kernels) counts iterations. The setting of the libraries of LLVM and
# Intel (macOS) counts milliseconds.
DEFAULTS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
_USER_SETTINGS = ("OMP_WAIT_POLICY", *DEFAULTS)


def spin_briefly() -> None:
    """Set a short spin time for this process and its child processes, unless the environment already sets a spin time.

    The OpenMP libraries read the setting when they are loaded, so call this function before torch is imported.
    """
    if not any(name in os.environ for name in _USER_SETTINGS):
        os.environ.update(DEFAULTS)
