"""What a client is told when something goes wrong, in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from groundup.core.errors import ConfigError, GroundupError, ResourceError

_SHOWN_MODELS = 12


class ApiError(Exception):
    """An answer with an error object: `{"error": {"message", "type", "param", "code"}}`.

    Args:
        status: the HTTP status.
        value: as in `GroundupError`; the message is made of it, `rule` and `fix`.
        rule: as there.
        fix: as there.
        param: the parameter that is to blame, e.g. "messages[0].content".
        code: a short name for programs, e.g. "context_length_exceeded".
    """

    def __init__(
        self,
        status: int,
        value: str,
        *,
        rule: str = "",
        fix: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(str(GroundupError(value, rule=rule, fix=fix)))
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The whole HTTP answer."""
        return JSONResponse(self.body, self.status, self.headers)


def overloaded(problem: ResourceError) -> ApiError:
    """503 for a request that the engine has no place for now; official clients try again by themselves."""
    return ApiError(
        503,
        problem.value,
        rule=problem.rule,
        fix="Try again in a moment.",
        code="overloaded",
        headers={"Retry-After": "1"},
    )


def from_groundup(problem: GroundupError, *, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """The answer to an error that the engine, the template or a grammar raised; see `ApiError`."""
    if isinstance(problem, ResourceError):
        return overloaded(problem)
    if isinstance(problem, ConfigError):
        return ApiError(400, problem.value, rule=problem.rule, fix=problem.fix, param=param, code=code)
    return failed()


def unknown_model(name: str, there: Sequence[str]) -> ApiError:
    """404 for a model that the server has not."""
    one = len(there) == 1
    shown = ", ".join(map(repr, there[:_SHOWN_MODELS])) + (", ..." if len(there) > _SHOWN_MODELS else "")
    return ApiError(
        404,
        f"model {name[:80]!r}",
        rule=f"this server has the model {shown} only" if one else f"this server has the models {shown or 'none'}",
        fix="Use that name." if one else "Use one of those names.",
        param="model",
        code="model_not_found",
    )


def failed() -> ApiError:
    """500 without particulars: they are in the server's log, and are nobody else's business."""
    return ApiError(
        500,
        "the server failed on this request",
        rule="this should not happen",
        fix="The server's log says what went wrong.",
        code="internal_error",
    )


def client_too_slow() -> ApiError:
    """408 for a stream whose client read nothing of it for too long."""
    return ApiError(
        408,
        "this answer was not read",
        rule="a stream that waits too long for its reader is cancelled, for the sake of those who wait for its place",
        fix="Send the request again, and read the events as they come.",
        code="not_read",
    )


def shutting_down() -> ApiError:
    """503 for a request that the end of the server cut off."""
    return ApiError(
        503,
        "the server is shutting down",
        rule="requests that are still running then are cancelled",
        fix="Send the request again when it is back.",
        code="shutting_down",
    )
