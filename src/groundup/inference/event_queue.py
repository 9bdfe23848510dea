"""A bounded queue that passes events from the engine's thread to a consumer thread or coroutine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from groundup.inference.request import TokenEvent


class WakeUps:
    """Coroutines to wake after a step of the engine: one call per event loop instead of one call per request."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}

    def add(self, waiter: asyncio.Future[None]) -> None:
        """Add the future that a coroutine awaits."""
        self._waiters.setdefault(waiter.get_loop(), []).append(waiter)

    def send(self) -> None:
        """Wake all coroutines."""
        for loop, waiters in self._waiters.items():
            with suppress(RuntimeError):  # the event loop is closed, so the consumer no longer waits
                loop.call_soon_threadsafe(_wake, waiters)
        self._waiters.clear()


class EventQueue:
    """A queue of the events of one request.

    `put` never blocks. Instead, the engine checks `full` before it generates the next token.

    Args:
        capacity: Number of unread events at which the queue counts as full.
        on_space: Function that is called in the consumer's thread when the consumer reads from a full queue.
    """

    def __init__(self, capacity: int, on_space: Callable[[], None]) -> None:
        self._capacity = capacity
        self._on_space = on_space
        self._items: deque[TokenEvent | BaseException] = deque()
        self._filled_at = 0.0  # value of time.monotonic() when the queue became full
        self._arrived = threading.Condition()
        self._waiter: asyncio.Future[None] | None = None
        self._wants_end = False  # the consumer reads nothing before the last event

    @property
    def full(self) -> bool:
        """Whether the number of unread events has reached `capacity`. False if the consumer waits for the end."""
        return len(self._items) >= self._capacity and not self._wants_end

    @property
    def full_seconds(self) -> float | None:
        """Number of seconds since the queue became full, or None if it is not full. The producer reads this value."""
        return time.monotonic() - self._filled_at if self.full else None

    def put(self, item: TokenEvent | BaseException, wake_ups: WakeUps) -> None:
        """Add an event. An exception as the last item reports that the request failed.

        Args:
            item: The event, or the exception.
            wake_ups: Receives the coroutine that waits for the event, if there is one.
        """
        with self._arrived:
            self._items.append(item)
            if len(self._items) == self._capacity:
                self._filled_at = time.monotonic()
            if self._wants_end and not _is_last(item):
                return
            self._arrived.notify()
            if self._waiter is not None:
                wake_ups.add(self._waiter)
                self._waiter = None

    def get(self) -> TokenEvent:
        """Block until an event is available, and return it.

        Raises:
            BaseException: The exception that ended the request.
        """
        with self._arrived:
            while not self._items:
                self._arrived.wait()
        return self._take()

    async def aget(self) -> TokenEvent:
        """Wait asynchronously until an event is available, and return it.

        Raises:
            BaseException: The exception that ended the request.
        """
        while True:
            with self._arrived:
                if self._items:
                    break
                waiter = self._waiter = asyncio.get_running_loop().create_future()
            await waiter
        return self._take()

    async def aget_all(self) -> list[TokenEvent]:
        """Wait asynchronously until the request has ended, and return all events that were not read.

        The consumer is woken only once, which costs less than one call of `aget` per token.

        Raises:
            BaseException: The exception that ended the request.
        """
        with self._arrived:
            was_full, self._wants_end = self.full, True
        if was_full:
            self._on_space()
        while True:
            with self._arrived:
                if self._items and _is_last(self._items[-1]):
                    break
                waiter = self._waiter = asyncio.get_running_loop().create_future()
            await waiter
        return [self._take() for _ in range(len(self._items))]

    def _take(self) -> TokenEvent:
        # Without the lock, a concurrent `put` could fill the queue unnoticed, and `on_space` would not be called.
        with self._arrived:
            was_full = self.full
            item = self._items.popleft()
        if was_full:
            self._on_space()  # called outside the lock, because it acquires the worker's lock
        if isinstance(item, BaseException):
            raise item
        return item


class EventStream:
    """An iterator and asynchronous iterator over the events of one request.

    The request is cancelled when the stream is closed or garbage-collected. A generator would not cancel a request
    before the first call of `next`.

    Args:
        queue: Queue from which the events are read.
        on_leave: Function that is called when the stream is closed. It cancels the request if the request is still
            running.

    Attributes:
        num_tokens: Number of tokens that were read.
    """

    def __init__(self, queue: EventQueue, on_leave: Callable[[], None]) -> None:
        self._queue = queue
        self._on_leave = on_leave
        self._ended = False
        self.num_tokens = 0

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> TokenEvent:
        if self._ended:
            raise StopIteration
        try:
            return self._note(self._queue.get())
        except BaseException:
            self.close()
            raise

    async def __anext__(self) -> TokenEvent:
        if self._ended:
            raise StopAsyncIteration
        try:
            return self._note(await self._queue.aget())
        except BaseException:  # for example, the consumer's task was cancelled while it waited
            self.close()
            raise

    async def rest(self) -> list[TokenEvent]:
        """Wait until the request has ended, and return all events that were not read.

        Raises:
            BaseException: The exception that ended the request.
        """
        try:
            return [self._note(event) for event in await self._queue.aget_all()]
        finally:
            self.close()

    def close(self) -> None:
        """Cancel the request if it is still running."""
        self._ended = True
        self._on_leave()

    async def aclose(self) -> None:
        """Close the stream. This method is the asynchronous counterpart of `close`."""
        self.close()

    def __del__(self) -> None:
        self.close()

    def _note(self, event: TokenEvent) -> TokenEvent:
        self._ended = event.finish_reason is not None
        self.num_tokens += event.token_id is not None
        return event


def _is_last(item: TokenEvent | BaseException) -> bool:
    return isinstance(item, BaseException) or item.finish_reason is not None


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
