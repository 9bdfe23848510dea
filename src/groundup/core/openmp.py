"""How OpenMP's threads wait: briefly, so that a second busy process does not stop a training."""

from __future__ import annotations

import os

# An idle OpenMP thread spins for milliseconds before it sleeps, and takes a core away from the thread it waits for.
# GNU's library (torch on Linux, our kernels) counts turns of the loop, LLVM's and Intel's (macOS) milliseconds.
DEFAULTS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
_DECIDED_BY_USER = ("OMP_WAIT_POLICY", *DEFAULTS)


def spin_briefly() -> None:
    """Set how long OpenMP's threads spin, in this process and its children, unless the user's environment does.

    The libraries read it once, when they are loaded: call it before torch is imported.
    """
    if not any(name in os.environ for name in _DECIDED_BY_USER):
        os.environ.update(DEFAULTS)
