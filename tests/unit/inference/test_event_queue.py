"""The mailbox between the engine's thread and a consumer loses no wake-up."""

from __future__ import annotations

import threading
from collections import deque

from groundup.inference import TokenEvent
from groundup.inference.mailbox import Mailbox, WakeUps

EVENT = TokenEvent("a", 1, "x")


def test_put_during_get_loses_no_wake_up() -> None:
    """A race once hung the stream: the engine filled the mailbox between the consumer's check and its read.

    The engine then waited for space, and the consumer did not notify it.
    """
    rooms: list[str] = []
    mailbox = Mailbox(2, lambda: rooms.append("room"))
    engine_sleeps: list[bool] = []

    def engine() -> None:
        mailbox.put(EVENT, WakeUps())
        engine_sleeps.append(mailbox.full)

    thread = threading.Thread(target=engine)

    class Interrupted(deque[TokenEvent | BaseException]):
        def popleft(self) -> TokenEvent | BaseException:
            thread.start()
            thread.join(0.3)  # long enough for an unblocked put
            return super().popleft()

    mailbox._items = Interrupted()
    mailbox.put(EVENT, WakeUps())
    assert mailbox.get() is EVENT
    thread.join()
    assert rooms or not engine_sleeps[0]
