"""Load the next batches in a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from groundup.distributed.ranks import same_gpu_initializer

BatchT = TypeVar("BatchT")


class Prefetch(Generic[BatchT]):
    """Callable that returns the batch at an index, and loads the next batches in a background thread.

    Use `Prefetch` as a context manager, or call `close` to stop the thread.

    Args:
        batches: Returns the batch at an index. The batch must depend only on the index.
        ahead: Maximum number of batches to load ahead.
        last: Returns the last index that will be requested, which may change while the run continues.
    """

    def __init__(self, batches: Callable[[int], BatchT], *, ahead: int, last: Callable[[], int]) -> None:
        self._batches = batches
        self._ahead = ahead
        self._last = last
        self._waiting: deque[tuple[int, Future[BatchT]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=same_gpu_initializer())

    def __call__(self, index: int) -> BatchT:
        """Return the batch at this index. If loading the batch failed in the thread, raise its exception here."""
        # If the index is not the expected next index, the batches that were loaded ahead are dropped.
        if self._waiting and self._waiting[0][0] != index:
            for _, other in self._waiting:
                other.cancel()
            self._waiting.clear()
        following = self._waiting[-1][0] + 1 if self._waiting else index
        for number in range(following, max(index, min(index + self._ahead, self._last())) + 1):
            self._waiting.append((number, self._thread.submit(self._batches, number)))
        return self._waiting.popleft()[1].result()

    def close(self) -> None:
        """Cancel the batches that wait to be loaded, and stop the thread."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
