"""Error responses in the format of OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from groundup.core.errors import ConfigError, GroundupError, ResourceError
from groundup.inference.worker import QueueFullError, RequestTimeoutError

_SHOWN_MODELS = 12


class ApiError(Exception):
    """An error that becomes the response `{"error": {"message", "type", "param", "code"}}`.

    Args:
        status: HTTP status code.
        value: What is wrong (see `GroundupError`). The error message consists of value, rule and fix.
        rule: The requirement that is violated.
        fix: Instruction to the user.
        param: Name of the invalid parameter, such as "messages[0].content".
        code: Machine-readable error code, such as "context_length_exceeded".
        headers: Additional HTTP headers of the response.
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
        """Body of the error response as JSON."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """HTTP response that reports the error."""
        return JSONResponse(self.body, self.status, self.headers)


def overloaded(problem: ResourceError, retry_seconds: int = 1) -> ApiError:
    """Return a 429 error for a request that exceeds the capacity. OpenAI's clients then retry automatically.

    Args:
        problem: Error that the engine raised.
        retry_seconds: Number of seconds after which the client should retry.
    """
    return ApiError(
        429,
        problem.value,
        rule=problem.rule,
        fix=f"Try again in {retry_seconds} s.",
        code="overloaded",
        headers={"Retry-After": str(retry_seconds)},
    )


def timed_out(problem: RequestTimeoutError) -> ApiError:
    """Return a 408 error for a request that exceeded its timeout.

    Args:
        problem: Error that the engine raised.
    """
    # Without the header, OpenAI's clients would send the request again, which increases the load.
    headers = {"X-Should-Retry": "false"}
    return ApiError(408, problem.value, rule=problem.rule, fix=problem.fix, code="request_timeout", headers=headers)


def from_groundup(problem: GroundupError, *, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """Convert an error of the engine, the chat template or a grammar to an error response.

    Args:
        problem: Error to convert.
        param: Name of the invalid parameter.
        code: Machine-readable error code.
    """
    if isinstance(problem, QueueFullError):
        return overloaded(problem, problem.retry_seconds)
    if isinstance(problem, RequestTimeoutError):
        return timed_out(problem)
    if isinstance(problem, ResourceError):
        return overloaded(problem)
    if isinstance(problem, ConfigError):
        return ApiError(400, problem.value, rule=problem.rule, fix=problem.fix, param=param, code=code)
    return failed()


def unknown_model(name: str, there: Sequence[str]) -> ApiError:
    """Return a 404 error for an unknown model.

    Args:
        name: Name of the model in the request.
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


def cannot_load(name: str, error: GroundupError, *, warn: Callable[[str], object]) -> ApiError:
    """Return a 400 error for a model that cannot be loaded. OpenAI's clients do not retry the request.

    Args:
        name: Name of the model.
        error: The reason, which may contain paths of the server.
        warn: Function that is called with the reason.
    """
    warn(f"model {name!r} cannot be loaded: {error}")
    return ApiError(
        400,
        f"model {name[:80]!r} cannot be loaded",
        fix="Use another model. The server's log contains the reason.",
        param="model",
        code="model_not_loaded",
    )


def failed() -> ApiError:
    """Return a 500 error without details. The server's log contains the details."""
    return ApiError(
        500,
        "internal server error",
        fix="See the server's log for the cause.",
        code="internal_error",
    )


def client_too_slow() -> ApiError:
    """Return a 408 error for a stream whose client did not read events for too long."""
    return ApiError(
        408,
        "the client did not read the stream for too long",
        fix="Send the request again, and read the events without a delay.",
        code="not_read",
    )


def shutting_down() -> ApiError:
    """Return a 503 error for a request that the server rejects or cancels because it is shutting down."""
    return ApiError(
        503,
        "the server is shutting down",
        fix="Send the request again later.",
        code="shutting_down",
        headers={"Retry-After": "5", "Connection": "close"},
    )
