"""HTTP server with a graceful shutdown."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from groundup.core.errors import ResourceError
from groundup.serve.http.drain import Drain
from groundup.serve.http.limits import ServerLimits
from groundup.serve.http.protocol import LimitedProtocol

_ABORT_SECONDS = 5  # time for aborted requests to send an error to their clients
_WATCH_SECONDS, _LATE_SECONDS = 0.2, 0.25
_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket to an address. Clients can connect after a `Server` has started to listen on the socket.

    Args:
        host: Host name or IP address.
        port: Port number. If it is 0, a free port is selected.

    Raises:
        ResourceError: The address is invalid, is in use, or does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # on Windows, the option allows two servers on one address
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, ValueError) as error:  # an invalid host name raises ValueError
        raise ResourceError(
            f"cannot listen on the address {host}:{port}: {getattr(error, 'strerror', None) or error}",
            fix="Give another port, e.g. --port 0 for a free port, or another host.",
        ) from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Return whether a socket is bound to a loopback address, which only this machine can reach.

    Args:
        bound: Bound socket.
    """
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """Return the URL of a bound socket, such as "http://127.0.0.1:8000".

    Args:
        bound: Bound socket.
    """
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """A uvicorn server that runs until it receives a signal or `should_exit` is set.

    After the first SIGINT or SIGTERM, the server rejects new requests, and running requests have `grace_seconds` to
    finish. After this time, or after a second signal, the running requests are aborted.

    Args:
        app: ASGI application to serve.
        grace_seconds: Number of seconds that running requests have to finish.
        abort: Function that aborts running requests, so that their clients receive an error. It may be called several
            times. Another thread calls this function.
        on_ready: Function that is called when clients can connect.
        limits: ServerLimits for clients and connections.
        note: Function that is called with a message when a shutdown waits for running requests.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace_seconds: int,
        abort: Callable[[], None],
        on_ready: Callable[[], None] | None = None,
        limits: ServerLimits | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._drain = Drain(app)
        super().__init__(
            uvicorn.Config(
                self._drain,
                lifespan="off",
                ws="none",
                http=partial(LimitedProtocol, limits=limits or ServerLimits()),  # type: ignore[arg-type]
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_ABORT_SECONDS,
            )
        )
        self._grace_seconds = grace_seconds
        self._abort = abort
        self._on_ready = on_ready
        self._note = note
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening for connections."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    async def main_loop(self) -> None:
        """Serve until `should_exit` is set. Then reject new requests until the running requests have ended."""
        watching = asyncio.ensure_future(_log_late_loop())
        try:
            await super().main_loop()
            self._drain.start()
            if self._note is not None and self._drain.num_running:
                self._note(f"Waiting for {self._drain.num_running} requests. Press Ctrl-C again to abort them.")
            if not await self._drain.finished(self._grace_seconds):
                await asyncio.to_thread(self._abort)
                await self._drain.finished(_ABORT_SECONDS)
        finally:
            watching.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. Unlike uvicorn, do not raise the signal again, because the process exits with success."""
        if self.should_exit and self._loop is not None:
            with suppress(RuntimeError):  # the event loop is closed, so the server has already stopped
                self._loop.call_soon_threadsafe(self._drain.give_up)
        self.should_exit = True


async def _log_late_loop() -> None:
    """Log when the event loop runs late, because all clients wait for it.

    CPU time of its thread means that a callback computes for too long. Otherwise, other threads use the CPU.
    """
    while True:
        due, cpu = time.monotonic() + _WATCH_SECONDS, time.thread_time()
        await asyncio.sleep(_WATCH_SECONDS)
        late, cpu = time.monotonic() - due, time.thread_time() - cpu
        if late > _LATE_SECONDS:
            _log.warning("the event loop was %.2f s late; its thread used %.2f s of CPU time", late, cpu)
