"""The number of CPU threads of a forward pass, which is smaller while another process trains a model."""

from __future__ import annotations

import time

import torch

from groundup.core.trainings import another_process_trains

_CHECK_SECONDS = 1.0


class DecodeThreads:
    """Number of threads for the forward passes of a runner, of which each may use another number.

    A training process uses all cores. If decoding did too, its threads would wait for each other at each operation, and
    both processes would be slower than with half of the threads.

    Args:
        fixed: Number of threads that is always used. Default: torch's number, or half of it while another process of
            this user trains a model on the CPU.
    """

    def __init__(self, fixed: int | None) -> None:
        self.fixed = fixed
        self._checked = -_CHECK_SECONDS
        self._shared = False

    def current(self) -> int:
        """Return the number of threads for the next forward pass."""
        if self.fixed is not None:
            return self.fixed
        now = time.monotonic()
        if now - self._checked >= _CHECK_SECONDS:
            self._checked = now
            self._shared = another_process_trains()
        threads = torch.get_num_threads()
        return max(1, threads // 2) if self._shared else threads
