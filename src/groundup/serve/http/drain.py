"""Rejection of new requests during a shutdown, while accepted requests finish."""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.serve.openai.errors import shutting_down

_HEALTH, _METRICS = "/health", "/metrics"


class Drain:
    """ASGI middleware that counts running requests. After `start`, it rejects new requests with status 503.

    Args:
        app: ASGI application that handles accepted requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._started = False
        self._changed = asyncio.Event()
        self.num_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._started and scope["path"] != _METRICS:
            await self._refusal(scope["path"])(scope, receive, send)
            return

        async def send_and_close(message: Message) -> None:
            if self._started and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"  # the client's next request needs another server
            await send(message)

        self.num_running += 1
        try:
            await self._app(scope, receive, send_and_close)
        finally:
            self.num_running -= 1
            if not self.num_running:
                self._changed.set()

    def start(self) -> None:
        """Reject new requests from now on."""
        self._started = True

    def give_up(self) -> None:
        """End the current call of `finished`."""
        self._changed.set()

    async def finished(self, seconds: float) -> bool:
        """Wait until no request is running, at most the given time. Return whether no request is running."""
        self._changed.clear()
        if self.num_running:
            try:
                await asyncio.wait_for(self._changed.wait(), seconds)
            except TimeoutError:
                return False
        return not self.num_running

    def _refusal(self, path: str) -> JSONResponse:
        refusal = shutting_down()
        if path == _HEALTH:
            return JSONResponse({"status": "draining"}, refusal.status, refusal.headers)
        return refusal.response
