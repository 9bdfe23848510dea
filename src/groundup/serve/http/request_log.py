"""A log line and a metric for each request. Neither contains text of prompts or answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.inference.event_queue import EventStream
from groundup.serve.http.transport import IGNORED

_USAGE = "groundup.usage"  # key of the token counts in the ASGI scope


class RequestLog:
    """ASGI middleware that reports each request when it has ended.

    Args:
        app: ASGI application that handles requests.
        routes: Routes of the application. Metrics contain their paths instead of paths that clients choose.
        note: Function that is called with a log line, or None for no log.
        count: Function that is called with the method, the path of the route and the status.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute] = (),
        *,
        note: Callable[[str], None] | None = None,
        count: Callable[[str, str, int], None] | None = None,
    ) -> None:
        self._app = app
        self._paths: dict[object, str] = {
            route.endpoint: route.path_format for route in routes if isinstance(route, Route)
        }
        self._note = note
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, ignored = time.monotonic(), 0, ""

        async def recording_send(message: Message) -> None:
            nonlocal status, ignored
            if message["type"] == "http.response.start":
                status = message["status"]
                ignored = Headers(raw=message.get("headers", [])).get(IGNORED, "")
            await send(message)

        try:
            await self._app(scope, receive, recording_send)
        finally:
            if self._count is not None:
                self._count(scope["method"], self._paths.get(scope.get("endpoint", None), "other"), status)
            if self._note is not None:
                milliseconds = 1000 * (time.monotonic() - started)
                self._note(_line(scope, status, milliseconds, ignored))


def record_usage(scope: Scope, prompt_tokens: int, streams: Sequence[EventStream]) -> None:
    """Store the token counts of a request for its log line.

    Args:
        scope: ASGI scope of the request.
        prompt_tokens: Number of prompt tokens.
        streams: Streams that count the generated tokens.
    """
    before_prompt, before_streams = scope.get(_USAGE, (0, ()))
    scope[_USAGE] = before_prompt + prompt_tokens, (*before_streams, *streams)


def _line(scope: Scope, status: int, milliseconds: float, ignored: str) -> str:
    # The path is the client's: `ascii` keeps line breaks and control characters out of the log.
    line = f"{status} {scope['method']} {ascii(scope['path'][:80])[1:-1]} {milliseconds:.0f} ms"
    if _USAGE in scope:
        prompt_tokens, streams = scope[_USAGE]
        line += f", {prompt_tokens} prompt tokens, {sum(stream.num_tokens for stream in streams)} generated"
    return f"{line}, ignored: {ignored}" if ignored else line
