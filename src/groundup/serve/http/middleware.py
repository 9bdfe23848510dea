"""The middleware of a server, in its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.types import ASGIApp

from groundup.serve.http.cors import allow_origins
from groundup.serve.http.guard import RequestGuard
from groundup.serve.http.request_log import RequestLog
from groundup.serve.metrics import Metrics


def with_middleware(
    app: Starlette,
    metrics: Metrics,
    *,
    api_key: str | None,
    loopback_only: bool,
    cors_origins: Sequence[str] = (),
    note: Callable[[str], None] | None = None,
) -> ASGIApp:
    """Return an application that checks access, answers preflight requests, and reports each request.

    Args:
        app: Application with the endpoints.
        metrics: Metrics that count the responses.
        api_key: Key that clients must send, or None if no key is required; see `RequestGuard`.
        loopback_only: Whether to accept only requests whose Host header is a loopback name.
        cors_origins: Origins of web pages that may use the API; see `allow_origins`.
        note: Function that is called with a log line for each request, or None for no log.

    Raises:
        ConfigError: An origin is invalid.
    """
    guard = RequestGuard(app, api_key=api_key, loopback_only=loopback_only)
    return RequestLog(allow_origins(guard, cors_origins), app.routes, note=note, count=metrics.on_response)
