"""The worker thread that runs the requests of one or more engines, and their queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from groundup.core.errors import ConfigError, ResourceError
from groundup.distributed.ranks import same_gpu_initializer
from groundup.inference.mailbox import Mailbox
from groundup.inference.request import GenerationRequest, TokenEvent
from groundup.inference.runner import SequenceCache
from groundup.inference.sequence import GeneratedSequence

_MAILBOX_EVENTS = 256  # a slower consumer pauses its own request only


StepResult = TokenEvent | Exception | None
"""The event of a sampled token, an error that ends the request, or None during prefill."""


class StepEngine(Protocol):
    """What the worker needs of an engine."""

    def begin(self, ticket: Ticket) -> GeneratedSequence:
        """Return a new sequence for a request that becomes active."""
        ...

    def step(self, tickets: Sequence[Ticket]) -> Sequence[StepResult]:
        """Compute the next tokens of active requests, the oldest first; return one result per request."""
        ...

    def release(self, ticket: Ticket) -> None:
        """Free the KV cache of a request that has ended."""
        ...


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the worker."""

    request: GenerationRequest
    ids: tuple[int, ...]
    engine: StepEngine
    mailbox: Mailbox
    sequence: GeneratedSequence | None = None  # created when the request becomes active
    cache: SequenceCache | None = None  # None also while other requests use all memory
    cancelled: bool = False


class Worker:
    """A thread that runs the steps of active requests. Requests can be added and cancelled at any time.

    Args:
        max_active: Maximum number of active requests.
        max_waiting: Maximum number of queued requests.
        read_timeout: Seconds after which a request with a full mailbox is cancelled, to free its slot for others.
    """

    def __init__(self, max_active: int, max_waiting: int, read_timeout: float = 60.0) -> None:
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._read_timeout = read_timeout
        self._tickets: dict[str, Ticket] = {}
        self._waiting: deque[Ticket] = deque()
        self._active: list[Ticket] = []  # used by the worker thread only
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is waiting or running."""
        return bool(self._tickets)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def enqueue(self, request: GenerationRequest, ids: tuple[int, ...], engine: StepEngine) -> Ticket:
        """Queue a request.

        Args:
            request: The request.
            ids: Token ids of its prompt.
            engine: The engine that runs it.

        Returns:
            The request's ticket, with its mailbox.

        Raises:
            ConfigError: The request id is in use.
            ResourceError: Too many requests are waiting, or the worker is closed.
        """
        with self._changed:
            if self._closed:
                raise ResourceError(f"request {request.id}", rule="the engine is closed", fix="Create a new Engine.")
            if request.id in self._tickets:
                raise ConfigError(
                    f"request id {request.id!r}",
                    rule="a waiting or running request has this id",
                    fix="Omit the id to get a new one.",
                )
            if len(self._waiting) >= self._max_waiting:
                raise ResourceError(
                    f"{len(self._waiting)} requests are waiting",
                    rule=f"max_waiting is {self._max_waiting}",
                    fix="Try again when a request has finished, or increase max_waiting.",
                )
            ticket = Ticket(request, ids, engine, Mailbox(_MAILBOX_EVENTS, self._notify))
            self._tickets[request.id] = ticket
            self._waiting.append(ticket)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, args=(same_gpu_initializer(),), name="groundup-engine", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        return ticket

    def cancel(self, request_id: str) -> bool:
        """Cancel a request.

        Args:
            request_id: `GenerationRequest.id`.

        Returns:
            Whether the request was waiting or running.
        """
        with self._changed:
            ticket = self._tickets.get(request_id)
            if ticket is None:
                return False
            ticket.cancelled = True
            self._changed.notify()
            return True

    def release(self, ticket: Ticket) -> None:
        """Cancel a request if it has not ended. Its id may belong to a newer request, which is not cancelled."""
        with self._changed:
            if self._tickets.get(ticket.request.id) is ticket:
                self.cancel(ticket.request.id)

    def close(self) -> None:
        """Cancel all requests and stop the thread."""
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

    def _work(self, set_device: Callable[[], None]) -> None:
        set_device()
        with torch.inference_mode():
            while self._admit():
                self._step()

    def _admit(self) -> bool:
        """Wait until a request can run, and activate waiting requests. Return False to stop the thread."""
        with self._changed:
            while True:
                for ticket in list(self._waiting):
                    # A cancelled request does not need a slot.
                    if ticket.cancelled or len(self._active) < self._max_active:
                        self._waiting.remove(ticket)
                        self._active.append(ticket)
                timeout = self._cancel_unread()
                if any(ticket.cancelled or not ticket.mailbox.full for ticket in self._active):
                    return True
                if self._closed and not self._active:
                    return False
                self._changed.wait(timeout)

    def _cancel_unread(self) -> float | None:
        """Cancel requests that exceed the read timeout; return the seconds until the next check, if any is needed."""
        remaining = []
        for ticket in self._active:
            seconds = ticket.mailbox.full_seconds
            if seconds is not None and not ticket.cancelled:
                ticket.cancelled = seconds >= self._read_timeout
                remaining.append(self._read_timeout - seconds)
        return max(0.0, min(remaining)) if remaining else None

    def _step(self) -> None:
        """Run one step of each active request whose consumer keeps up."""
        batches: dict[StepEngine, list[Ticket]] = {}
        for ticket in list(self._active):
            if ticket.cancelled:
                self._deliver(ticket, _cancelled(ticket))
            elif not ticket.mailbox.full:
                batches.setdefault(ticket.engine, []).append(ticket)
        for engine, tickets in batches.items():
            for ticket, result in zip(tickets, _results(engine, tickets), strict=True):
                self._deliver(ticket, result)

    def _deliver(self, ticket: Ticket, result: StepResult) -> None:
        """Send the result of a step to the consumer of its request, and remove a request that has ended."""
        if result is None:
            return
        if isinstance(result, Exception) or result.finish_reason is not None:
            self._active.remove(ticket)
            ticket.engine.release(ticket)
            with self._changed:
                del self._tickets[ticket.request.id]
        ticket.mailbox.put(result)


def _cancelled(ticket: Ticket) -> TokenEvent:
    if ticket.sequence is None:
        return TokenEvent(ticket.request.id, None, "", finish_reason="cancelled")
    return ticket.sequence.cancelled()


def _results(engine: StepEngine, tickets: Sequence[Ticket]) -> list[StepResult]:
    """Return the results of one step. A request that cannot begin fails alone."""
    failed: dict[Ticket, Exception] = {}
    for ticket in tickets:
        if ticket.sequence is None:
            try:
                ticket.sequence = engine.begin(ticket)
            except Exception as error:
                failed[ticket] = error
    begun = [ticket for ticket in tickets if ticket not in failed]
    try:
        results: dict[Ticket, StepResult] = dict(zip(begun, engine.step(begun), strict=True)) if begun else {}
    except Exception as error:
        results = dict.fromkeys(begun, error)
    return [failed.get(ticket) or results[ticket] for ticket in tickets]
