"""Bodies in, events out: what all endpoints share."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from groundup.serve.errors import ApiError, failed
from groundup.serve.schema import Body, read_body
from groundup.serve.streams import ClientGoneError, unless_gone

IGNORED = "X-Groundup-Ignored"  # header: parameters of the request that have no effect
_MAX_IGNORED = 32
_PRINTABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_BODY_BYTES = 4 * 2**20  # far more than any context holds
_log = logging.getLogger(__name__)

B = TypeVar("B", bound=Body)
Json = dict[str, Any]


class ServerSentEvents(Response):
    """JSON objects as server-sent events, written as they come, and "[DONE]".

    Args:
        chunks: the objects.
        cancel: called at the end, and when the client has gone.
        headers: besides those of a stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self, chunks: AsyncGenerator[Json], cancel: Callable[[], object], headers: Mapping[str, str] | None = None
    ) -> None:
        own = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies must not hold it
        super().__init__(headers={**own, **(headers or {})})
        del self.headers["content-length"]
        self._chunks, self._cancel = chunks, cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._write(send))
        except ClientGoneError:
            pass
        finally:
            self._cancel()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

        async def say(data: str) -> None:
            await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})

        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    await say(_compact(chunk))
            await say("[DONE]")
        except ApiError as error:
            await say(_compact(error.body))
        except Exception:
            # The status has been sent; that the stream breaks off must not look like a finished answer.
            _log.exception("a stream failed")
            await say(_compact(failed().body))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """The header that names the parameters of a request without effect; none where there are none.

    The names are the client's, so what a header cannot hold is left out.
    """
    shown = [name if _PRINTABLE.fullmatch(name) else "?" for name in names]
    shown = list(dict.fromkeys(shown))[:_MAX_IGNORED]
    return {IGNORED: ", ".join(shown)} if shown else {}


async def read_request(request: Request, kind: type[B]) -> B:
    """A request's JSON, checked.

    Raises:
        ApiError: 415 no JSON, 413 too much of it, 400 what is wrong in it.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        # And a web page cannot send it to another site without asking first, which no answer here allows.
        raise ApiError(
            415,
            f"Content-Type: {media_type[:80] or 'none'}",
            rule="a request's body is JSON and says so",
            fix="Send the header Content-Type: application/json.",
            code="unsupported_media_type",
        )
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise ApiError(
                413,
                f"body: more than {MAX_BODY_BYTES:,} bytes",
                rule=f"a request's body has at most {MAX_BODY_BYTES:,} bytes",
                fix="Send less text: it must fit into the model's context, too.",
                code="body_too_large",
            )
    return read_body(kind, bytes(content))


def _compact(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
