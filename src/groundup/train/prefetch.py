"""Batches made ahead of time, so that a step finds its own at hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from groundup.distributed.ranks import on_this_gpu

BatchT = TypeVar("BatchT")


class Prefetch(Generic[BatchT]):
    """The same batches by the same indices, the next ones made by a thread. A context manager, or `close` it.

    Args:
        batches: a pure function of the index; called in this one thread only.
        ahead: how many batches wait at most.
        last: says beyond which index none will be asked for, as far as that is known now.
    """

    def __init__(self, batches: Callable[[int], BatchT], *, ahead: int, last: Callable[[], int]) -> None:
        self._batches = batches
        self._ahead = ahead
        self._last = last
        self._waiting: deque[tuple[int, Future[BatchT]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=on_this_gpu())

    def __call__(self, index: int) -> BatchT:
        """The batch of an index; an error in making it is raised here."""
        if self._waiting and self._waiting[0][0] != index:  # not the next in turn: what was made ahead is of no use
            for _, other in self._waiting:
                other.cancel()
            self._waiting.clear()
        following = self._waiting[-1][0] + 1 if self._waiting else index
        for number in range(following, max(index, min(index + self._ahead, self._last())) + 1):
            self._waiting.append((number, self._thread.submit(self._batches, number)))
        return self._waiting.popleft()[1].result()

    def close(self) -> None:
        """Make no more."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
