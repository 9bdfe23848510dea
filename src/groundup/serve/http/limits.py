"""Limits that protect the server from slow, stalled and too many clients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of a server.

    Attributes:
        request_seconds: Number of seconds after which a request fails, including the time in the queue.
        client_seconds: Number of seconds that a client has to send the headers of a request, and then its body.
        read_seconds: Number of seconds after which a connection is closed if the client does not read the response.
        max_connections: Maximum number of open connections. If all are in use, the longest idle one is closed.
    """

    request_seconds: float = 600.0
    client_seconds: float = 30.0
    read_seconds: float = 60.0
    max_connections: int = 512
