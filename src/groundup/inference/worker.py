"""The one thread that steps all active requests in turn, of one engine or of several, and the line they wait in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from groundup.core.errors import ConfigError, ResourceError
from groundup.distributed.ranks import on_this_gpu
from groundup.inference.mailbox import Mailbox
from groundup.inference.request import GenerationRequest, TokenEvent
from groundup.inference.sequence import GeneratedSequence

_MAILBOX_EVENTS = 256  # a consumer that is further behind pauses its request, and only its own


class StepEngine(Protocol):
    """Who takes a request a step further: an engine."""

    def begin(self, ticket: Ticket) -> GeneratedSequence:
        """The sequence of a request that becomes active."""
        ...

    def step(self, sequence: GeneratedSequence) -> TokenEvent | None:
        """Feed a sequence once; None while its prompt is read."""
        ...


@dataclass(slots=True, eq=False)
class Ticket:
    """A request on its way through the worker."""

    request: GenerationRequest
    ids: tuple[int, ...]
    engine: StepEngine
    mailbox: Mailbox
    sequence: GeneratedSequence | None = None  # made when the request becomes active: it holds the cache
    cancelled: bool = False


class Worker:
    """Requests come and go at any time; each is stepped by its own engine, and none waits for another's end.

    Args:
        max_active: requests that are stepped at a time; each has a key-value cache of its own.
        max_waiting: requests that may wait for their turn.
        unread_seconds: a request whose mailbox has been full for so long is cancelled: its place is others' by then.
    """

    def __init__(self, max_active: int, max_waiting: int, unread_seconds: float = 60.0) -> None:
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._unread_seconds = unread_seconds
        self._tickets: dict[str, Ticket] = {}
        self._waiting: deque[Ticket] = deque()
        self._active: list[Ticket] = []  # touched by the thread only
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is under way or waits."""
        return bool(self._tickets)

    @property
    def closed(self) -> bool:
        """Whether no more requests are taken, and those under way have been cancelled."""
        return self._closed

    def enter(self, request: GenerationRequest, ids: tuple[int, ...], engine: StepEngine) -> Ticket:
        """Let a request in.

        Raises:
            ConfigError: its id is in use.
            ResourceError: too many requests are waiting, or the worker is closed.
        """
        with self._changed:
            if self._closed:
                raise ResourceError(
                    f"request {request.id}", rule="a closed engine takes none", fix="Make a new Engine."
                )
            if request.id in self._tickets:
                raise ConfigError(
                    f"request id {request.id!r}",
                    rule="ids of requests under way differ",
                    fix="Leave the id out to get a fresh one.",
                )
            if len(self._waiting) >= self._max_waiting:
                raise ResourceError(
                    f"{len(self._waiting)} requests are waiting",
                    rule=f"this engine lets {self._max_waiting} wait",
                    fix="Try again when some have finished, or raise max_waiting.",
                )
            ticket = Ticket(request, ids, engine, Mailbox(_MAILBOX_EVENTS, self._notify))
            self._tickets[request.id] = ticket
            self._waiting.append(ticket)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, args=(on_this_gpu(),), name="groundup-engine", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        return ticket

    def cancel(self, request_id: str) -> bool:
        """End a request; its consumer gets an event with the reason "cancelled". False: no such request."""
        with self._changed:
            ticket = self._tickets.get(request_id)
            if ticket is None:
                return False
            ticket.cancelled = True
            self._changed.notify()
            return True

    def leave(self, ticket: Ticket) -> None:
        """Cancel a request that may have ended already; its id may since be another's."""
        with self._changed:
            if self._tickets.get(ticket.request.id) is ticket:
                self.cancel(ticket.request.id)

    def close(self) -> None:
        """Cancel what is under way and end the thread."""
        with self._changed:
            self._closed = True
            for ticket in self._tickets.values():
                ticket.cancelled = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _work(self, settle: Callable[[], None]) -> None:
        settle()
        with torch.inference_mode():
            while self._admit():
                for ticket in list(self._active):
                    if ticket.cancelled or not ticket.mailbox.full:
                        self._advance(ticket)

    def _admit(self) -> bool:
        """Wait for something to do and let waiting requests in. False: the worker is closed and empty."""
        with self._changed:
            while True:
                for ticket in list(self._waiting):
                    # One that leaves need not wait for a place.
                    if ticket.cancelled or len(self._active) < self._max_active:
                        self._waiting.remove(ticket)
                        self._active.append(ticket)
                patience = self._cancel_unread()
                if any(ticket.cancelled or not ticket.mailbox.full for ticket in self._active):
                    return True
                if self._closed and not self._active:
                    return False
                self._changed.wait(patience)

    def _cancel_unread(self) -> float | None:
        """Cancel who has not read for too long; returns the seconds until the next one might be, None: nobody."""
        left = []
        for ticket in self._active:
            seconds = ticket.mailbox.full_seconds
            if seconds is not None and not ticket.cancelled:
                ticket.cancelled = seconds >= self._unread_seconds
                left.append(self._unread_seconds - seconds)
        return max(0.0, min(left)) if left else None

    def _advance(self, ticket: Ticket) -> None:
        """Take one request one step further. Whatever goes wrong in it is its own consumer's to hear."""
        event: TokenEvent | Exception | None
        try:
            event = _step(ticket)
        except Exception as error:
            event = error
        if event is None:
            return
        if isinstance(event, Exception) or event.finish_reason is not None:
            self._active.remove(ticket)
            with self._changed:
                del self._tickets[ticket.request.id]
        ticket.mailbox.put(event)


def _step(ticket: Ticket) -> TokenEvent | None:
    if ticket.sequence is None:
        if ticket.cancelled:
            return TokenEvent(ticket.request.id, None, "", finish_reason="cancelled")
        ticket.sequence = ticket.engine.begin(ticket)
    if ticket.cancelled:
        return ticket.sequence.cancelled()
    return ticket.engine.step(ticket.sequence)
