"""How long code takes, for tests of how its time grows with its input."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def cpu_seconds(call: Callable[[], object]) -> float:
    """Of the quickest of three: a busy machine, or garbage of tests before, makes some slow, and never one fast."""
    each = []
    for _ in range(3):
        gc.collect()
        started = time.process_time()
        call()
        each.append(time.process_time() - started)
    return min(each)
