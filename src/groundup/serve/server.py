"""The HTTP server, with graceful shutdown."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from groundup.core.errors import ResourceError

_ABORT_SECONDS = 5  # for cancelled requests to send their error


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket. Clients can connect when a `Server` runs on it.

    Args:
        host: Host name or address.
        port: Port. 0 selects a free port.

    Raises:
        ResourceError: The address is invalid, in use, or not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # on Windows, this option would allow two servers on the same address
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, ValueError) as error:  # ValueError: an invalid host name
        raise ResourceError(
            f"cannot listen on the address {host}:{port}: {getattr(error, 'strerror', None) or error}",
            fix="Give another port, e.g. --port 0 for a free port, or another host.",
        ) from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Return whether only this machine can reach a socket.

    Args:
        bound: The socket.
    """
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """Return the URL of a socket, such as "http://127.0.0.1:8000".

    Args:
        bound: The socket.
    """
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """A uvicorn server that runs until a signal or `should_exit = True`.

    After the first SIGINT or SIGTERM, it accepts no requests, and running requests have `grace_seconds` to finish.
    Then, or after a second signal, they are aborted.

    Args:
        app: The ASGI application.
        grace_seconds: Time for running requests to finish, in seconds.
        abort: Aborts running requests, so that their clients get an error. It may be called several times.
        on_ready: Called when clients can connect.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace_seconds: int,
        abort: Callable[[], None],
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                http="h11",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=grace_seconds + _ABORT_SECONDS,
            )
        )
        self._grace_seconds = grace_seconds
        self._abort = abort
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for running requests, and abort them after the grace period."""
        grace_over = asyncio.get_running_loop().call_later(self._grace_seconds, self._abort)
        try:
            await super().shutdown(sockets)
        finally:
            grace_over.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. Unlike in uvicorn, the signal is not raised again, because the exit is a success."""
        if self.should_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._abort)
        self.should_exit = True
