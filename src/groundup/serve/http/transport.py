"""Reading of request bodies, and responses that stream server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from groundup.core.errors import ConfigError
from groundup.inference.worker import RequestTimeoutError
from groundup.serve.http.streams import ClientGoneError, unless_gone
from groundup.serve.openai.body import Body, read_body
from groundup.serve.openai.errors import ApiError, failed, from_groundup, timed_out

IGNORED = "X-Groundup-Ignored"  # response header that lists the parameters without effect
_MAX_IGNORED = 32
_PRINTABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LARGE_BODY_BYTES = 2**16
MAX_BODY_BYTES = 4 * 2**20  # larger than the text of any context
_log = logging.getLogger(__name__)

B = TypeVar("B", bound=Body)
Json = dict[str, Any]


class ServerSentEvents(Response):
    """A response that streams JSON objects as server-sent events.

    Args:
        chunks: JSON objects to send.
        cancel: Function that is called when the stream ends or the client disconnects.
        headers: Additional HTTP headers of the response.
        typed: Whether the key "type" of an object is the name of its event. Otherwise events have no names, and the
            last event is "[DONE]".
        failure: Function that returns the object for an error. Default: the body of an error response.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[Json],
        cancel: Callable[[], object],
        headers: Mapping[str, str] | None = None,
        *,
        typed: bool = False,
        failure: Callable[[ApiError], Json] = lambda error: error.body,
    ) -> None:
        own = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # the headers prevent buffering in proxies
        super().__init__(headers={**own, **(headers or {})})
        del self.headers["content-length"]
        self._chunks, self._cancel = chunks, cancel
        self._typed, self._failure = typed, failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the status, the headers and all events."""
        try:
            await unless_gone(receive, self._write(send))
        except ClientGoneError:
            pass
        finally:
            self._cancel()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

        async def send_event(chunk: Json) -> None:
            name = f"event: {chunk['type']}\n" if self._typed else ""
            await send_text(f"{name}data: {_compact(chunk)}\n\n")

        async def send_text(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    await send_event(chunk)
            if not self._typed:
                await send_text("data: [DONE]\n\n")
        except ApiError as error:
            await send_event(self._failure(error))
        except RequestTimeoutError as error:
            await send_event(self._failure(timed_out(error)))
        except ConfigError as error:
            await send_event(self._failure(from_groundup(error)))
        except Exception:
            # The status code is already sent, so an error event shows the client that the response is incomplete.
            _log.exception("a stream failed")
            await send_event(self._failure(failed()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """Return the response header that lists the parameters without effect.

    Names that are not allowed in a header become "?".

    Args:
        names: Names of the parameters without effect.
    """
    shown = [name if _PRINTABLE.fullmatch(name) else "?" for name in names]
    shown = list(dict.fromkeys(shown))[:_MAX_IGNORED]
    return {IGNORED: ", ".join(shown)} if shown else {}


async def read_request(request: Request, kind: type[B]) -> B:
    """Read and validate the JSON body of a request.

    Args:
        request: HTTP request to read.
        kind: Class of the request body.

    Raises:
        ApiError: The status is 415 for a content type other than JSON, 413 if the body is too large, 408 if the client
            sends it too slowly, and 400 if the JSON or a parameter is invalid.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # A web page can send this content type to another origin only with CORS, which is off by default.
        raise ApiError(
            415,
            f"Content-Type: {media_type[:80] or 'none'}",
            rule="the body must be JSON",
            fix="Send the header Content-Type: application/json.",
            code="unsupported_media_type",
        )
    seconds = request.app.state.limits.client_seconds
    try:
        async with asyncio.timeout(seconds):
            content = await _content(request)
    except TimeoutError:
        raise ApiError(
            408,
            f"body: incomplete after {seconds:g} s",
            fix="Send the whole body without a delay.",
            code="body_timeout",
            headers={"Connection": "close"},
        ) from None
    if len(content) > _LARGE_BODY_BYTES:  # validation would block the event loop
        return await asyncio.to_thread(read_body, kind, content)
    return read_body(kind, content)


async def _content(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    content = bytearray()
    # The HTTP parser has checked that a Content-Length is a number of at most 20 digits.
    too_large = bool(announced) and int(announced) > MAX_BODY_BYTES
    if not too_large:
        async for piece in request.stream():
            content += piece
            if too_large := len(content) > MAX_BODY_BYTES:
                break
    if too_large:
        raise ApiError(
            413,
            f"body: more than {MAX_BODY_BYTES:,} bytes",
            fix="Send less text: it must fit into the model's context.",
            code="body_too_large",
        )
    return bytes(content)


def _compact(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
