"""The event queue between the engine's thread and a consumer loses no wake-up."""

from __future__ import annotations

import threading
from collections import deque

from groundup.inference import TokenEvent
from groundup.inference.event_queue import EventQueue, WakeUps

EVENT = TokenEvent("a", 1, "x")


def test_put_during_get_loses_no_wake_up() -> None:
    """A race once hung the stream: the engine filled the queue between the consumer's check and its read.

    The engine then waited for space, and the consumer did not notify it.
    """
    calls: list[str] = []
    queue = EventQueue(2, lambda: calls.append("on_space"))
    engine_sleeps: list[bool] = []

    def engine() -> None:
        queue.put(EVENT, WakeUps())
        engine_sleeps.append(queue.full)

    thread = threading.Thread(target=engine)

    class Interrupted(deque[TokenEvent | BaseException]):
        def popleft(self) -> TokenEvent | BaseException:
            thread.start()
            thread.join(0.3)  # long enough for an unblocked put
            return super().popleft()

    queue._items = Interrupted()
    queue.put(EVENT, WakeUps())
    assert queue.get() is EVENT
    thread.join()
    assert calls or not engine_sleeps[0]
