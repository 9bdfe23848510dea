"""The mailbox between the engine's thread and a consumer: no wake-up is lost."""

from __future__ import annotations

import threading
from collections import deque

from groundup.inference import TokenEvent
from groundup.inference.mailbox import Mailbox

EVENT = TokenEvent("a", 1, "x")


def test_an_event_that_comes_while_one_is_taken_loses_no_wake_up() -> None:
    """The engine filled the mailbox after the consumer had seen that it was not full, and before it took an event: the
    engine then slept for want of room, the consumer told nobody that there was some, and the stream hung."""
    rooms: list[str] = []
    mailbox = Mailbox(2, lambda: rooms.append("room"))
    engine_sleeps: list[bool] = []

    def engine() -> None:
        mailbox.put(EVENT)
        engine_sleeps.append(mailbox.full)

    thread = threading.Thread(target=engine)

    class Interrupted(deque[TokenEvent | BaseException]):
        def popleft(self) -> TokenEvent | BaseException:
            thread.start()
            thread.join(0.3)  # long enough for a put that nothing holds up
            return super().popleft()

    mailbox._items = Interrupted()
    mailbox.put(EVENT)
    assert mailbox.get() is EVENT
    thread.join()
    assert rooms or not engine_sleeps[0]
