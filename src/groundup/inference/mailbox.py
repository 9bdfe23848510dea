"""A bounded queue that carries events from the engine's thread to a consumer thread or coroutine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Self

from groundup.inference.request import TokenEvent


class Mailbox:
    """A queue of the events of one request. `put` never blocks: the engine checks `full` before a step.

    Args:
        capacity: Number of unread events at which the mailbox is full.
        on_space: Called by the consumer when it reads from a full mailbox.
    """

    def __init__(self, capacity: int, on_space: Callable[[], None]) -> None:
        self._capacity = capacity
        self._on_space = on_space
        self._items: deque[TokenEvent | BaseException] = deque()
        self._filled_at = 0.0  # monotonic time at which the mailbox became full
        self._arrived = threading.Condition()
        self._wake_coroutine: Callable[[], object] | None = None

    @property
    def full(self) -> bool:
        """Whether `capacity` or more events are unread."""
        return len(self._items) >= self._capacity

    @property
    def full_seconds(self) -> float | None:
        """Seconds since the mailbox became full; None if it is not full. For the producer."""
        return time.monotonic() - self._filled_at if self.full else None

    def put(self, item: TokenEvent | BaseException) -> None:
        """Add an event, or the error that ends the request."""
        with self._arrived:
            self._items.append(item)
            if len(self._items) == self._capacity:
                self._filled_at = time.monotonic()
            self._arrived.notify()
            wake, self._wake_coroutine = self._wake_coroutine, None
        if wake is not None:
            with suppress(RuntimeError):  # closed event loop: the consumer no longer waits
                wake()

    def get(self) -> TokenEvent:
        """Block until the next event and return it.

        Raises:
            BaseException: The error that ended the request.
        """
        with self._arrived:
            while not self._items:
                self._arrived.wait()
        return self._take()

    async def aget(self) -> TokenEvent:
        """Await the next event and return it.

        Raises:
            BaseException: The error that ended the request.
        """
        loop = asyncio.get_running_loop()
        while True:
            with self._arrived:
                if self._items:
                    break
                arrived = asyncio.Event()
                self._wake_coroutine = partial(loop.call_soon_threadsafe, arrived.set)
            await arrived.wait()
        return self._take()

    def _take(self) -> TokenEvent:
        with self._arrived:  # without the lock, a concurrent `put` could fill the mailbox and `on_space` be missed
            was_full = self.full
            item = self._items.popleft()
        if was_full:
            self._on_space()  # outside the lock, because it acquires the worker's lock
        if isinstance(item, BaseException):
            raise item
        return item


class EventStream:
    """An iterator and async iterator over the events of one request.

    Closing or garbage-collecting the stream cancels the request. A generator would not do so before its first `next`.

    Args:
        mailbox: The events.
        on_leave: Called when the stream is closed. It cancels the request if it still runs.
    """

    def __init__(self, mailbox: Mailbox, on_leave: Callable[[], None]) -> None:
        self._mailbox = mailbox
        self._on_leave = on_leave
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> TokenEvent:
        if self._ended:
            raise StopIteration
        try:
            return self._note(self._mailbox.get())
        except BaseException:
            self.close()
            raise

    async def __anext__(self) -> TokenEvent:
        if self._ended:
            raise StopAsyncIteration
        try:
            return self._note(await self._mailbox.aget())
        except BaseException:  # the consumer's task may have been cancelled while it waited
            self.close()
            raise

    def close(self) -> None:
        """Cancel the request if it has not ended."""
        self._ended = True
        self._on_leave()

    async def aclose(self) -> None:
        """Close the stream; the async counterpart of `close`."""
        self.close()

    def __del__(self) -> None:
        self.close()

    def _note(self, event: TokenEvent) -> TokenEvent:
        self._ended = event.finish_reason is not None
        return event
