"""Conversion of errors to API responses. The Studio's user owns the machine, so messages are not shortened."""

from __future__ import annotations

from groundup.core.errors import GroundupError, ResourceError
from groundup.serve.errors import ApiError


def to_api_error(error: GroundupError) -> ApiError:
    """Return a 503 response for a ResourceError, and a 400 response for other errors, with the full message."""
    status = 503 if isinstance(error, ResourceError) else 400
    return ApiError(status, error.value, rule=error.rule, fix=error.fix, code="refused")
