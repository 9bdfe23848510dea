"""Cross-origin resource sharing (CORS): web pages of other origins that may use the API."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from groundup.core.errors import ConfigError
from groundup.serve.http.transport import IGNORED


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return an application that allows requests from web pages of the given origins.

    Wrap the check of the API key too, because browsers send preflight requests without a key.

    Args:
        app: ASGI application.
        origins: Origins such as "https://chat.example.com", or "*" for all origins. If empty, only pages of the server
            itself can use the API.

    Raises:
        ConfigError: An origin is not of the form SCHEME://HOST[:PORT].
    """
    for origin in origins:
        parts = urlsplit(origin)
        is_origin = parts.scheme in ("http", "https") and parts.netloc and origin == f"{parts.scheme}://{parts.netloc}"
        if origin != "*" and not is_origin:
            raise ConfigError(
                f"cors_origin = {origin}",
                rule="an origin consists of scheme, host and port, without a path",
                fix="Write --cors-origin https://chat.example.com, for example.",
            )
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=(IGNORED, "Retry-After"),
    )
