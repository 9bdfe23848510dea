"""Base classes of request bodies, and the conversion of validation errors to error responses."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from groundup.core.config import nearest
from groundup.serve.openai.errors import ApiError

TAG = "#"  # first character of the tags of unions, which are not part of the path of a parameter
_SHOWN_CHARACTERS = 80
# Ignored parameters that have one of these default values are not reported to the client.
_IGNORED_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": (True, False),
    "metadata": ({},),
    "verbosity": ("medium",),
    "include_obfuscation": (False,),
    "truncation": ("disabled",),
    "include": ([],),
}

B = TypeVar("B", bound="Body")


def only(*harmless: Any, reason: str = "not supported by this server") -> Any:
    """Return the type of an unsupported parameter. A value is rejected unless it is one of the given values.

    Args:
        harmless: Values that clients send although they do not need the parameter.
        reason: Why other values are rejected.
    """

    def check(value: Any) -> Any:
        if value not in harmless:
            raise PydanticCustomError("unsupported", reason)
        return value

    return Annotated[Any, AfterValidator(check)]


class Body(BaseModel):
    """Base class of request bodies. Types are strict, unknown keys are rejected, and null means an omitted key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {name: value for name, value in values.items() if value is not None or name == "content"}
        return values


class Lenient(Body):
    """Base class of bodies that accept and ignore unknown keys, such as new or server-specific parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of unknown keys whose value is not a known default."""
        extra = (self.model_extra or {}).items()
        return tuple(name for name, value in extra if value not in _IGNORED_DEFAULTS.get(name, ()))


def read_body(body: type[B], content: bytes) -> B:
    """Parse and validate the JSON body of a request.

    Args:
        body: Class of the request body.
        content: Bytes of the request body.

    Raises:
        ApiError: The status is 400. The error describes the first invalid parameter.
    """
    try:
        return body.model_validate_json(content)
    except ValidationError as error:
        problems = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        raise _explain(body, problems[0]) from None
    except RecursionError:
        raise _invalid(
            "body", "the JSON is nested too deeply", "Send a flat JSON object.", None, "invalid_json"
        ) from None


def _explain(body: type[Body], problem: ErrorDetails) -> ApiError:
    kind, context, location, value = problem["type"], problem.get("ctx", {}), problem["loc"], problem["input"]
    if "field" in context:  # a validator of an object refused the value of one key
        location = (*location, context["field"])
        value = value.get(context["field"]) if isinstance(value, dict) else None
    param = context.get("param") or _written(location)[:_SHOWN_CHARACTERS]
    name = str(location[-1])[:_SHOWN_CHARACTERS] if location else ""
    if kind == "json_invalid":
        fix = 'Send a JSON object, e.g. {"model": ..., "messages": [...]}.'
        return _invalid("body", f"not valid JSON ({context.get('error', 'syntax error')})", fix, None, "invalid_json")
    if not param:
        return _invalid("body", "must be a JSON object", "Send an object.", None, "invalid_type")
    if kind == "missing":
        return _invalid(f"{param} is missing", "", f"Give {name}.", param, "missing_required_parameter")
    if kind == "extra_forbidden":
        match = nearest(name, body.model_fields)
        fix = f"Did you mean {match}? Otherwise omit it." if match else "Omit it."
        return _invalid(f"unknown parameter {_shown(param)}", "", fix, param, "unknown_parameter")
    rule = problem["msg"].replace("Input should be", "must be")
    if "param" in context:  # a validator that compares several parameters failed
        return _invalid(param, rule, "Change one of them.", param, "invalid_value")
    code = {"unsupported": "unsupported_value"}.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    fix = "Omit it." if kind == "unsupported" else f"Give {param} another value."
    return _invalid(f"{param} = {_shown(value)}", rule, fix, param, code)


def _invalid(value: str, rule: str, fix: str, param: str | None, code: str) -> ApiError:
    return ApiError(400, value, rule=rule.rstrip("."), fix=fix, param=param, code=code)


def _written(location: tuple[str | int, ...]) -> str:
    """Convert the location of an error to a path such as messages[0].content."""
    text = ""
    for part in location:
        if isinstance(part, str) and part.startswith(TAG):
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
