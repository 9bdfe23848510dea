"""What stands before the application: who may ask at all, and a line about each request."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.core.errors import ConfigError
from groundup.serve.errors import ApiError
from groundup.serve.transport import IGNORED

_OPEN = "/health"  # probes have no key, and learn nothing


def require_api_key(key: str | None, variable: str, host: str, *, loopback: bool) -> None:
    """Check that a server has the API key that it needs, and that clients can send it in a header.

    Args:
        key: None: no key.
        variable: the environment variable for it, which the error names.

    Raises:
        ConfigError: the key has invisible or non-ASCII characters; or other machines reach the server without a key.
    """
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            "the API key",
            rule="a key is made of visible ASCII characters, since it travels in a header",
            fix="Choose another, e.g. with: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    if key is None and not loopback:
        raise ConfigError(
            f"host = {host}",
            rule="others can reach this address, so the server needs an API key",
            fix=f"Set the environment variable {variable}, or leave --host out to serve this machine only.",
        )


class RequestGuard:
    """Lets through who has the key, and on a loopback address only who calls it by a loopback name.

    Without the second, a web page could reach the server through a name of its own that it has pointed at this
    machine (DNS rebinding), with the browser's same-origin rule on its side.

    Args:
        app: the application behind.
        api_key: what clients send as `Authorization: Bearer KEY`; None: no key.
        loopback_only: whether the Host header must name this machine.
        browser: the key is a password, too, as browsers ask for and send it (RFC 7617); any user name will do.
        note: takes a line about each request: status, path, seconds, names of ignored parameters; never what was asked.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str | None,
        loopback_only: bool,
        browser: bool = False,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self._api_key = None if api_key is None else api_key.encode()
        self._loopback_only = loopback_only
        self._browser = browser
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, ignored = time.monotonic(), 0, ""

        async def watched(message: Message) -> None:
            nonlocal status, ignored
            if message["type"] == "http.response.start":
                status = message["status"]
                ignored = Headers(raw=message.get("headers", [])).get(IGNORED, "")
            await send(message)

        try:
            refusal = self._refusal(scope)
            await (self._app if refusal is None else refusal.response)(scope, receive, watched)
        finally:
            if self._note is not None:
                line = f"{status} {scope['method']} {scope['path'][:80]} {time.monotonic() - started:.2f} s"
                self._note(f"{line}, ignored: {ignored}" if ignored else line)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._loopback_only and not _is_loopback(headers.get("host", "")):
            return ApiError(
                403,
                f"Host: {headers.get('host', 'none')[:80]}",
                rule="this server listens on this machine only, and answers to its loopback names only",
                fix="Call it as localhost or 127.0.0.1, or serve on another host with an API key.",
                code="host_not_allowed",
            )
        if self._api_key is not None and scope["path"] != _OPEN and not self._has_key(scope):
            return ApiError(
                401,
                "no valid API key",
                rule="this server wants its key with each request",
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
        # In constant time, or the key could be guessed character by character.
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
