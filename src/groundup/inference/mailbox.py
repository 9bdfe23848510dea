"""The bounded way of a request's events from the engine's thread to its consumer: a thread or a coroutine."""

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
    """Events of one request, in order. The engine asks `full` before it makes more, so that `put` never
    waits.

    Args:
        capacity: events that may wait before the mailbox is full.
        on_room: called, from the consumer's side, when a full mailbox has room again.
    """

    def __init__(self, capacity: int, on_room: Callable[[], None]) -> None:
        self._capacity = capacity
        self._on_room = on_room
        self._items: deque[TokenEvent | BaseException] = deque()
        self._filled_at = 0.0  # of the clock, when the mailbox became full
        self._arrived = threading.Condition()
        self._wake_coroutine: Callable[[], object] | None = None

    @property
    def full(self) -> bool:
        """Whether the consumer is behind by `capacity` events."""
        return len(self._items) >= self._capacity

    @property
    def full_seconds(self) -> float | None:
        """For how long nothing has been taken out of a full mailbox; None: it has room. For the thread that puts."""
        return time.monotonic() - self._filled_at if self.full else None

    def put(self, item: TokenEvent | BaseException) -> None:
        """Deliver an event, or the error that ends the request."""
        with self._arrived:
            self._items.append(item)
            if len(self._items) == self._capacity:
                self._filled_at = time.monotonic()
            self._arrived.notify()
            wake, self._wake_coroutine = self._wake_coroutine, None
        if wake is not None:
            with suppress(RuntimeError):  # the consumer's event loop has been closed; nobody waits any more
                wake()

    def get(self) -> TokenEvent:
        """Wait, as a thread, for the next event; an error is raised."""
        with self._arrived:
            while not self._items:
                self._arrived.wait()
        return self._take()

    async def aget(self) -> TokenEvent:
        """Wait, as a coroutine, for the next event; an error is raised."""
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
        with self._arrived:  # an event that came in between would fill it unseen, and nobody wake the engine again
            was_full = self.full
            item = self._items.popleft()
        if was_full:
            self._on_room()  # outside the lock: it takes the engine's
        if isinstance(item, BaseException):
            raise item
        return item


class EventStream:
    """The events of one request, for `for` and for `async for`; the last one has a finish reason.

    A consumer that goes away takes the request with it: a closed or dropped stream calls `on_leave`, even
    when it was never started, which a generator would not do.
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
        """Cancel the request, unless it has ended."""
        self._ended = True
        self._on_leave()

    async def aclose(self) -> None:
        """`close`, where an asynchronous iterator is expected to have it."""
        self.close()

    def __del__(self) -> None:
        self.close()

    def _note(self, event: TokenEvent) -> TokenEvent:
        self._ended = event.finish_reason is not None
        return event
