"""HTTP connections with limits: deadlines for slow clients, and a maximum number of connections.

uvicorn itself limits only the time between two requests. It waits without limit for headers, for a body, and until the
client reads the response.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundup.serve.http.limits import ServerLimits

_MAX_DISCARDED_BYTES = 16 * 2**20  # rest of a rejected body that is read so that the client sees the response
_BODY_GRACE_SECONDS = 5  # the application rejects a stalled body with status 408 before the connection is closed

_log = logging.getLogger(__name__)
_log.setLevel(logging.ERROR)  # uvicorn logs each invalid request as a warning, so that clients could fill the disk


class LimitedProtocol(H11Protocol):
    """A connection of a client.

    Args:
        limits: Deadlines and maximum number of connections.
        arguments: Arguments of `H11Protocol`.
    """

    def __init__(self, *, limits: ServerLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.logger = _log
        self._limits = limits
        self._idle_since = time.monotonic()
        self._discarded = 0
        self._deadlines: dict[str, asyncio.TimerHandle] = {}

    @property
    def idle_since(self) -> float | None:
        """Value of `time.monotonic` since which no request has been processed, or None during a request."""
        return self._idle_since if self.cycle is None or self.cycle.response_complete else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, and close an idle one if there are too many."""
        has_place = len(self.connections) < self._limits.max_connections or self._close_idle()
        super().connection_made(transport)
        # With a limit of 0, each byte that the client does not read starts the read deadline.
        transport.set_write_buffer_limits(high=0)
        if has_place:
            self._expect_request()
        else:
            self._refuse(b"429 Too Many Requests\r\nretry-after: 1")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadlines."""
        for name in list(self._deadlines):
            self._stop_deadline(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process bytes of a request. The deadline ends when the request is complete."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_deadline("receive")
            self._discarded = 0
        elif "receive" not in self._deadlines:
            self._expect_request()
        if self.conn.their_state is h11.SEND_BODY and self.idle_since is not None:
            self._discarded += len(data)
            if self._discarded > _MAX_DISCARDED_BYTES:
                self.transport.abort()

    def on_response_complete(self) -> None:
        """Note that the connection is idle."""
        self._idle_since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start the deadline for the client to read the response."""
        super().pause_writing()
        self._start_deadline("read", self._limits.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the deadline, because the client has read the response so far."""
        self._stop_deadline("read")
        super().resume_writing()

    def _expect_request(self) -> None:
        self._start_deadline("receive", self._limits.client_seconds, self._on_receive_deadline)

    def _on_receive_deadline(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:  # the application has its own deadline for the body
            self._start_deadline("receive", self._limits.client_seconds + _BODY_GRACE_SECONDS, self.transport.abort)
        else:
            self._refuse(b"408 Request Timeout")

    def _start_deadline(self, name: str, seconds: float, callback: Callable[[], None]) -> None:
        self._stop_deadline(name)
        self._deadlines[name] = self.loop.call_later(seconds, callback)

    def _stop_deadline(self, name: str) -> None:
        if name in self._deadlines:
            self._deadlines.pop(name).cancel()

    def _refuse(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def _close_idle(self) -> bool:
        """Close the connection that is idle for the longest time. Return False if no connection is idle."""
        idle = [each for each in self.connections if isinstance(each, LimitedProtocol) and each.idle_since is not None]
        if not idle:
            return False
        longest = min(idle, key=lambda each: each._idle_since)
        longest.transport.abort()
        self.connections.discard(longest)
        return True
