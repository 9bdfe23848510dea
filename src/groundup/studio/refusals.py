"""A mistake of the person at the page, told in full: the page is theirs, and so is the machine."""

from __future__ import annotations

from groundup.core.errors import GroundupError, ResourceError
from groundup.serve.errors import ApiError


def refused(problem: GroundupError) -> ApiError:
    """400, or 503 where the machine lacks something, with value, rule and fix."""
    status = 503 if isinstance(problem, ResourceError) else 400
    return ApiError(status, problem.value, rule=problem.rule, fix=problem.fix, code="refused")
