"""Access control of the server, as middleware around the application."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from groundup.core.errors import ConfigError
from groundup.serve.openai.errors import ApiError

_OPEN = "/health"  # this path requires no API key, so that health probes can use it


def require_api_key(key: str | None, variable: str, host: str, *, loopback: bool) -> None:
    """Raise an error if the API key is invalid, or if it is missing although other machines can reach the server.

    Args:
        key: API key of the server, or None.
        variable: Name of the environment variable that sets the key, for the error message.
        host: Host that the server listens on.
        loopback: Whether only this machine can reach the server.

    Raises:
        ConfigError: The key contains invisible or non-ASCII characters, or a required key is missing.
    """
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            "the API key has invisible or non-ASCII characters",
            rule="it is sent in an HTTP header",
            fix="Choose another, e.g. with: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    if key is None and not loopback:
        raise ConfigError(
            f"host = {host}",
            rule="other machines can reach this address, so the server needs an API key",
            fix=f"Set the environment variable {variable}, or omit --host to serve only this machine.",
        )


class RequestGuard:
    """ASGI middleware that checks the API key and the Host header.

    The check of the Host header prevents DNS rebinding. Without this check, a web page could use its own domain name to
    send requests to a server on a loopback address.

    Args:
        app: ASGI application that handles accepted requests.
        api_key: Key that clients must send as `Authorization: Bearer KEY`, or None if no key is required.
        loopback_only: Whether to accept only requests whose Host header is a loopback name.
        browser: Whether to accept the key also as the password of HTTP Basic authentication (RFC 7617), with any user
            name.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str | None,
        loopback_only: bool,
        browser: bool = False,
    ) -> None:
        self._app = app
        self._api_key = None if api_key is None else api_key.encode()
        self._loopback_only = loopback_only
        self._browser = browser

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection: check it, and pass it to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal.response)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._loopback_only and not _is_loopback(headers.get("host", "")):
            return ApiError(
                403,
                f"Host: {headers.get('host', 'none')[:80]}",
                rule="this server accepts only loopback names",
                fix="Use localhost or 127.0.0.1, or serve on another host with an API key.",
                code="host_not_allowed",
            )
        if self._api_key is not None and scope["path"] != _OPEN and not self._has_key(scope):
            return ApiError(
                401,
                "the request has no valid API key",
                fix="Send the header Authorization: Bearer KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": 'Basic realm="groundup", charset="UTF-8"' if self._browser else "Bearer"},
            )
        return None

    def _has_key(self, scope: Scope) -> bool:
        assert self._api_key is not None
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if self._browser and scheme.lower() == b"basic":
            return hmac.compare_digest(_password(key.strip()), self._api_key)
        # The comparison takes constant time, which prevents timing attacks.
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._api_key)


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
        return name == "localhost" or ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False
