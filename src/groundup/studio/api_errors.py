"""Conversion of errors to API responses.

The responses contain the full error messages, because the user of the Studio also owns the machine.
"""

from __future__ import annotations

from groundup.core.errors import GroundupError, ResourceError
from groundup.serve.openai.errors import ApiError


def to_api_error(error: GroundupError) -> ApiError:
    """Return an API error with the full message of `error`.

    The status is 503 for a ResourceError and 400 for other errors.
    """
    status = 503 if isinstance(error, ResourceError) else 400
    return ApiError(status, error.value, rule=error.rule, fix=error.fix, code="refused")
