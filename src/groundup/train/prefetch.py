"""Load batches ahead of time in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from groundup.distributed.ranks import same_gpu_initializer

BatchT = TypeVar("BatchT")


class Prefetch(Generic[BatchT]):
    """Function from an index to its batch; a thread loads the next batches. A context manager, or call `close`.

    Args:
        batches: Pure function of the index; called in one thread only.
        ahead: Maximum number of batches to load ahead.
        last: Returns the last index that will be requested, as currently known.
    """

    def __init__(self, batches: Callable[[int], BatchT], *, ahead: int, last: Callable[[], int]) -> None:
        self._batches = batches
        self._ahead = ahead
        self._last = last
        self._waiting: deque[tuple[int, Future[BatchT]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches", initializer=same_gpu_initializer())

    def __call__(self, index: int) -> BatchT:
        """Return the batch with this index; raise the error of loading it."""
        if self._waiting and self._waiting[0][0] != index:  # out of order: the batches loaded ahead are useless
            for _, other in self._waiting:
                other.cancel()
            self._waiting.clear()
        following = self._waiting[-1][0] + 1 if self._waiting else index
        for number in range(following, max(index, min(index + self._ahead, self._last())) + 1):
            self._waiting.append((number, self._thread.submit(self._batches, number)))
        return self._waiting.popleft()[1].result()

    def close(self) -> None:
        """Stop loading."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
