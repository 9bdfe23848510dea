"""The HTTP server: a socket, uvicorn on it, and an end that lets answers finish."""

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

_LAST_WORDS_SECONDS = 5  # for what was cut off to tell its clients


def bind(host: str, port: int) -> socket.socket:
    """A socket at the address; port 0 takes a free one. Nobody can connect before a `Server` runs on it.

    Raises:
        ResourceError: the address is taken, not this machine's, or not an address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere this option lets two servers share an address
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, ValueError) as error:  # ValueError: a host that is no name at all
        raise ResourceError(
            f"{host}:{port}: {getattr(error, 'strerror', None) or error}",
            rule="a server needs an address of this machine that nobody else uses",
            fix="Give another port, e.g. --port 0 for any that is free, or another host.",
        ) from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """The address for clients, as in "http://127.0.0.1:8000"."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Serves an application until a signal, or `should_exit = True`, ends it.

    The first SIGINT or SIGTERM takes no more requests and lets those under way finish, for `grace_seconds`; then,
    or with a second signal, they are cut off.

    Args:
        cut_off: ends what is under way, so that its clients hear of it; may be called more than once.
        on_ready: called when clients can connect.
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
                timeout_graceful_shutdown=grace_seconds + _LAST_WORDS_SECONDS,
            )
        )
        self._grace_seconds = grace_seconds
        self._cut_off = abort
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers finish, but not for ever."""
        grace_over = asyncio.get_running_loop().call_later(self._grace_seconds, self._cut_off)
        try:
            await super().shutdown(sockets)
        finally:
            grace_over.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. uvicorn would raise it again at the end, but a server that was told to stop has not failed."""
        if self.should_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._cut_off)
        self.should_exit = True
