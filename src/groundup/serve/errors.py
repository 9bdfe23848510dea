"""Errors in the format of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from groundup.core.errors import ConfigError, GroundupError, ResourceError

_SHOWN_MODELS = 12


class ApiError(Exception):
    """An error response: `{"error": {"message", "type", "param", "code"}}`.

    Args:
        status: HTTP status.
        value: What is wrong, see `GroundupError`. The message consists of value, rule and fix.
        rule: What must hold.
        fix: What to do.
        param: Invalid parameter, e.g. "messages[0].content".
        code: Error code for programs, e.g. "context_length_exceeded".
        headers: HTTP headers.
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
        """The error as JSON."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The HTTP response."""
        return JSONResponse(self.body, self.status, self.headers)


def overloaded(problem: ResourceError) -> ApiError:
    """Return 503 for a request that exceeds the engine's capacity. OpenAI's clients retry automatically.

    Args:
        problem: The error of the engine.
    """
    return ApiError(
        503,
        problem.value,
        rule=problem.rule,
        fix="Try again in a moment.",
        code="overloaded",
        headers={"Retry-After": "1"},
    )


def from_groundup(problem: GroundupError, *, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """Convert an error of the engine, the chat template or a grammar.

    Args:
        problem: The error.
        param: Invalid parameter.
        code: Error code for programs.
    """
    if isinstance(problem, ResourceError):
        return overloaded(problem)
    if isinstance(problem, ConfigError):
        return ApiError(400, problem.value, rule=problem.rule, fix=problem.fix, param=param, code=code)
    return failed()


def unknown_model(name: str, there: Sequence[str]) -> ApiError:
    """Return 404 for an unknown model.

    Args:
        name: Name in the request.
        there: Names of the served models.
    """
    one = len(there) == 1
    shown = ", ".join(map(repr, there[:_SHOWN_MODELS])) + (", ..." if len(there) > _SHOWN_MODELS else "")
    return ApiError(
        404,
        f"unknown model {name[:80]!r}",
        rule=f"this server has {'the model' if one else 'the models'} {shown or 'none'}",
        fix="Use this name." if one else "Use one of these names.",
        param="model",
        code="model_not_found",
    )


def failed() -> ApiError:
    """Return 500 without details, which are in the server's log."""
    return ApiError(
        500,
        "internal server error",
        fix="See the server's log for the cause.",
        code="internal_error",
    )


def client_too_slow() -> ApiError:
    """Return 408 for a stream that the client did not read for too long."""
    return ApiError(
        408,
        "the client did not read the stream for too long",
        fix="Send the request again, and read the events without a delay.",
        code="not_read",
    )


def shutting_down() -> ApiError:
    """Return 503 for a request that was cancelled because the server shuts down."""
    return ApiError(
        503,
        "the server is shutting down",
        fix="Send the request again later.",
        code="shutting_down",
    )
