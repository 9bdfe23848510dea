"""Merging of event streams, and cancellation of work for disconnected clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from starlette.types import Receive

from groundup.inference import TokenEvent

T = TypeVar("T")


class ClientGoneError(Exception):
    """The client closed its connection before the response was complete."""


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """Wait for a coroutine or future, and cancel it if the client disconnects.

    Args:
        receive: ASGI receive function of the request. The request body must already have been read.
        work: Coroutine or future.

    Returns:
        The result of `work`.

    Raises:
        ClientGoneError: The client disconnected. In this case, `work` was cancelled and has ended.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def unless_gone_thread(receive: Receive, work: asyncio.Future[T], cancel: Callable[[], object]) -> T:
    """Wait for the work of a thread. If the client disconnects, cancel the work and wait until the thread has ended.

    A thread cannot be interrupted, and what it uses must not be released while it runs.

    Args:
        receive: ASGI receive function of the request. The request body must already have been read.
        work: Future of the thread.
        cancel: Function that makes the thread end soon.

    Returns:
        The result of `work`.

    Raises:
        ClientGoneError: The client disconnected.
    """
    try:
        return await unless_gone(receive, asyncio.shield(work))
    finally:
        if not work.done():
            cancel()
            await asyncio.gather(work, return_exceptions=True)


async def merged(streams: Sequence[AsyncIterator[TokenEvent]]) -> AsyncGenerator[tuple[int, TokenEvent]]:
    """Yield events of all streams in the order in which they arrive, each with the index of its stream.

    Args:
        streams: Streams of events to merge.
    """
    if len(streams) == 1:  # the usual case, without a task per event
        async for event in streams[0]:
            yield 0, event
        return
    waiting = {asyncio.ensure_future(_next(stream)): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = waiting.pop(task)
                event = task.result()
                if event.finish_reason is None:
                    waiting[asyncio.ensure_future(_next(streams[index]))] = index
                yield index, event
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _next(stream: AsyncIterator[TokenEvent]) -> TokenEvent:
    return await anext(stream)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
